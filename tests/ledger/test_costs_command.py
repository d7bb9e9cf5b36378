"""`trilith costs`: reports, forecasts, re-rating and own servers from a ledger that is there."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from store.test_contract import charge

from trilith import cli
from trilith_gateway import key as keys
from trilith_gateway.commands.costs_detail import of_budget
from trilith_gateway.forecast import forecast
from trilith_gateway.store.sqlite import SqliteStore, connect, database
from trilith_gateway.terms import Budget

Costs = Callable[..., str]
DAY = 86_400.0
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
USD = 10**12


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def costs(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> Costs:
    price = {"input_usd_per_mtok": "2", "output_usd_per_mtok": "6"}
    models = {
        "m": {"kind": "chat", "upstream": {"engine": "e"}, "price": price},
        "gpt": {"kind": "chat", "upstream": {"provider": "openai/gpt-4o"}, "price": price},
    }
    engines = {"e": {"cost": {"usd_per_hour": "3"}}}
    file = tmp_path / "trilith.yaml"
    file.write_text(yaml.safe_dump({"home": str(home), "models": models, "engines": engines}), "utf-8")

    def run(*arguments: str) -> str:
        assert cli.main(["costs", *arguments, "--settings", str(file)]) == 0
        return capsys.readouterr().out

    return run


def fill(home: Path, *rows: dict[str, Any]) -> None:
    store = SqliteStore(home)
    for number, row in enumerate(rows):
        store.append(charge(number) | {"rule": "usage", "category": "usage", "rows": 0} | row)
    store.close()


CALL = {"at": NOVEMBER, "model": "m", "kind": "chat", "team": "red", "key_id": "k", "org": "acme"}
USED = {
    "input_tokens": 10,
    "cached_input_tokens": 0,
    "output_tokens": 5,
    "reasoning_tokens": 0,
    "requests": 1,
}


def test_a_request_counts_once_and_amounts_are_grouped_as_asked(costs: Costs, home: Path) -> None:
    attempt = CALL | {"category": "attempt", "team": "platform", "amount_pico_usd": 3}
    other = CALL | {"at": NOVEMBER + DAY, "team": "blue", "amount_pico_usd": 5, "saved_pico_usd": 9}
    fill(home, CALL | {"amount_pico_usd": 7}, attempt, other, CALL | {"amount_pico_usd": None})
    told = json.loads(costs("--by", "team,day,org", "--json"))
    seen = [
        [row[name] for name in ("team", "day", "org", "requests", "amount_pico_usd", "unpriced")]
        for row in told
    ]
    assert seen == [
        ["red", "2026-11-01", "acme", 2, 7, 1],
        ["blue", "2026-11-02", "acme", 1, 5, 0],
        ["platform", "2026-11-01", "acme", 0, 3, 0],
    ]
    assert len(json.loads(costs("--since", "2026-11-02", "--json"))) == 1
    (row,) = csv.DictReader(io.StringIO(costs("--by", "model", "--csv")))
    assert (row["usd"], row["saved_usd"]) == ("0.000000000015", "0.000000000009")
    assert "0.000000000015" in costs("--by", "model,kind")


def test_rerating_is_a_dry_run_until_it_is_applied_and_then_done_once(costs: Costs, home: Path) -> None:
    fill(home, CALL | USED | {"amount_pico_usd": 1}, CALL | USED | {"amount_pico_usd": None, "model": "gpt"})
    asked = ("rerate", "--since", "2026-11-01", "--price-from", "settings")
    due = 2 * (10 * 2_000_000 + 5 * 6_000_000) - 1
    for _ in range(2):
        assert "0.000099999999 USD" in costs(*asked)
        assert "nothing was written" in costs(*asked)
    assert due == 99_999_999
    assert "the adjustments are in the ledger" in costs(*asked, "--apply")
    assert " 0 differ" in costs(*asked, "--apply")
    told = json.loads(costs("--by", "category", "--json"))
    assert {row["category"]: row["amount_pico_usd"] for row in told} == {"adjustment": due, "usage": 1}
    assert sum(row["unpriced"] for row in told) == 0  # it was, and has an adjustment now
    assert "1 charges" in costs("rerate", "--since", "2026-11-01", "--model", "gpt", "--price-from", "book")


def test_an_adjustment_is_a_correction_on_the_bill_of_the_month_in_which_it_was_made(
    costs: Costs, home: Path
) -> None:
    fill(
        home,
        CALL | USED | {"at": NOVEMBER - DAY, "amount_pico_usd": 1},
        CALL | {"amount_pico_usd": -4, "category": "idle"},
    )
    costs("rerate", "--since", "2026-10-01", "--apply")
    rows = list(csv.DictReader(io.StringIO(costs("--focus"))))
    by_category = {row["ChargeCategory"]: row for row in rows}
    assert set(by_category) == {"Usage", "Adjustment", "Credit"}
    adjusted = by_category["Adjustment"]
    assert adjusted["ChargePeriodStart"] == "2026-10-31T00:00:00Z"
    assert adjusted["BillingPeriodStart"] == datetime.now(UTC).strftime("%Y-%m-01T00:00:00Z")
    assert (adjusted["ChargeClass"], adjusted["ConsumedQuantity"]) == ("Correction", "")


def test_the_parquet_export_holds_the_same_rows_with_exact_decimals(
    costs: Costs, home: Path, tmp_path: Path
) -> None:
    fill(home, *(CALL | {"amount_pico_usd": 10**13 + n, "team": f"t{n}"} for n in range(5)))
    costs("--parquet", str(tmp_path / "costs.parquet"))
    found = pyarrow.parquet.read_table(tmp_path / "costs.parquet")
    told = list(csv.DictReader(io.StringIO(costs("--focus"))))
    assert [Decimal(row["BilledCost"]) for row in told] == found["BilledCost"].to_pylist()
    assert sum(found["BilledCost"].to_pylist()) * USD == 5 * 10**13 + 10
    assert found["ChargeClass"].null_count == 5


def test_own_servers_show_cost_charges_idle_time_and_who_would_bear_it(costs: Costs, home: Path) -> None:
    idle = {"model": "engine:e", "kind": "engine", "category": "idle", "team": "platform"}
    shares = [CALL | USED | {"team": team, "amount_pico_usd": 100} for team in ("blue", "red")]
    fill(home, *shares, CALL | idle | {"amount_pico_usd": 801, "at": NOVEMBER})
    (told,) = json.loads(costs("engines", "--json"))
    assert (told["cost_pico_usd"], told["charged_pico_usd"], told["idle_pico_usd"]) == (1001, 200, 801)
    assert told["absorbed_pico_usd"] == {"blue": 501, "red": 500}
    assert "engine:e" in costs("engines")


def test_forecasts_name_what_will_do_what_will_not_and_where_there_is_too_little_data(
    costs: Costs, home: Path
) -> None:
    fill(home)
    with connect(database(home)) as connection:
        made, _ = keys.mint("poor", budget_pico_usd=5 * USD, budget_window="total")
        keys.save(connection, made)
    assert "too little data" in costs("forecast")
    now = time.time()
    spent = [CALL | {"key_id": made.id, "at": now - n * DAY, "amount_pico_usd": USD} for n in range(1, 5)]
    store = SqliteStore(home)
    for number, row in enumerate(spent):
        store.append(charge(number) | row)
    store.close()
    (told,) = json.loads(costs("forecast", "--json"))
    assert (told["spent_pico_usd"], told["verdict"]) == (4 * USD, "will not do")
    assert told["low_pico_usd"] <= told["expected_pico_usd"] <= told["high_pico_usd"]


def test_a_forecast_is_the_line_through_what_has_passed(home: Path) -> None:
    fill(home, *(CALL | {"at": NOVEMBER + n * DAY, "amount_pico_usd": 10 * USD} for n in range(10)))
    with connect(database(home)) as connection:
        told = of_budget(connection, Budget(f"key:{CALL['key_id']}", 400 * USD, "month"), NOVEMBER + 10 * DAY)
    assert (told.spent, told.expected, told.low, told.high) == (100 * USD, 300 * USD, 300 * USD, 300 * USD)
    assert told.verdict(400 * USD) == "will do"
    assert told.verdict(299 * USD) == "will not do"
    assert told.verdict(100 * USD) == "used up"


@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=30), st.integers(0, 10**15), st.floats(0.01, 30))
def test_an_interval_holds_the_expectation_and_never_less_than_what_is_spent(
    parts: list[int], running: int, left: float
) -> None:
    told = forecast(parts, running, len(parts) + 0.5, left)
    assert told.expected is not None
    if len(parts) < 3:
        assert told.low is told.high is None
    else:
        assert told.low is not None
        assert told.high is not None
        assert told.spent <= told.low <= told.expected <= told.high
