"""The ledger as FOCUS has it."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

from support.gateway import StartGateway

from trilith.testing import MemoryUpstream
from trilith_gateway import focus
from trilith_gateway.commands.costs import _GROUPS


def exported(gateway: object) -> list[dict[str, str]]:
    gateway.platform.store.flush()  # type: ignore[attr-defined]
    with gateway.platform.store.reading() as connection:  # type: ignore[attr-defined]
        found = connection.execute(focus.statement(_GROUPS["day"]), (0.0, float("inf"))).fetchall()
    file = io.StringIO()
    focus.write(focus.rows(found, "acme"), file)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


def test_the_sum_of_the_export_is_that_of_the_ledger(start_gateway: StartGateway) -> None:
    odd = {"price": {"usd_per_request": "0.000000000007"}}
    gateway = start_gateway({"echo": MemoryUpstream(), "other": MemoryUpstream()}, other=odd)
    for model in ("echo", "echo", "other"):
        gateway.chat(model=model)
    rows = exported(gateway)
    ledger = sum(row["amount_pico_usd"] for row in gateway.ledger())
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(ledger) / 10**12
    assert {row["SkuId"]: row["x_Requests"] for row in rows} == {"echo": "2", "other": "1"}


def test_what_has_no_price_is_not_a_cost_of_zero(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo={"price": None})
    gateway.chat()
    assert exported(gateway) == []


def test_the_values_are_those_that_focus_allows(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    gateway.chat()
    (row,) = exported(gateway)
    assert tuple(row) == focus.COLUMNS
    assert row["ChargeCategory"] == "Usage"
    assert row["ServiceCategory"] == "AI and Machine Learning"
    assert (
        row["BillingPeriodStart"]
        <= row["ChargePeriodStart"]
        < row["ChargePeriodEnd"]
        <= row["BillingPeriodEnd"]
    )
    assert row["SkuPriceId"]
    assert int(row["ConsumedQuantity"]) == int(row["x_InputTokens"]) + int(row["x_OutputTokens"])
