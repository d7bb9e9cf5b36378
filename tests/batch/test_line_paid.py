"""A line of a batch costs its answer once, at the price of batches, whoever gives it, whatever is killed."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from bench.money import Ear
from support.direct import direct
from support.gateway import PRICE
from support.told import TellingUpstream, answer

from trilith.settings.schema import Settings
from trilith_gateway import platform as platforms
from trilith_gateway import rerate
from trilith_gateway.batch.line import Line, Outcome
from trilith_gateway.batch.table import Batch
from trilith_gateway.batch.turn import Turn
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import Key

IN, OUT = 1_000_000, 3_000_000  # pico-USD a token, as PRICE says
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
HALF = {**PRICE, "batch_factor": "0.5"}
OWN = (10 * IN + 5 * OUT) // 2
BOUND = 2 * 10**9
"""More than a line may cost, and less than two lines."""
BUSY = (503, {"error": {"message": "busy"}})


def line(**body: Any) -> Line:
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}], **body}
    return Line(1, "one", "/v1/chat/completions", json.dumps(asked).encode())


async def take(built: platforms.Platform, key_id: str, *, paid: bool, **body: Any) -> Outcome:
    now = time.time()
    fields = ("batch_" + "0" * 32, "direct", key_id, "/v1/chat/completions", "file-1", "null", "in_progress")
    batch = Batch(*fields, now, now + 60, now, None, None, None, 1, 0, 0, None, None, "[]", "here")
    outcome = await Turn(built).take(batch, line(**body), 0, lambda: False, paid=paid)
    assert outcome is not None
    return outcome


def holder(built: platforms.Platform, exchange: Exchange) -> Key:
    found = built.keys.find(exchange.headers["authorization"].removeprefix("Bearer "))
    assert found is not None
    return found


async def rows(built: platforms.Platform) -> list[dict[str, Any]]:
    await asyncio.to_thread(built.store.flush)
    with built.store.reading() as connection:
        assert connection.execute("select * from reservations").fetchall() == []
        return [dict(row) for row in connection.execute("select * from ledger order by id").fetchall()]


async def test_a_line_whose_paid_answer_was_lost_is_charged_once_however_often_it_is_asked(
    tmp_path: Path,
) -> None:
    upstream = TellingUpstream(answer(USED), BUSY, answer(USED))
    built, exchange = direct(tmp_path, upstream, {}, price=HALF, budget_pico_usd=BOUND)
    key = holder(built, exchange)
    for paid in (False, True):  # killed between the charge and the outcome
        assert (await take(built, key.id, paid=paid)).answered
    found = await rows(built)
    own = [row for row in found if row["team"] == "direct"]
    assert [row["amount_pico_usd"] for row in own] == [OWN]
    again = [row for row in found if row["team"] == "platform" and row["amount_pico_usd"]]
    assert [row["amount_pico_usd"] for row in again] == [OWN]  # what was invoiced a second time
    assert {row["category"] for row in again} == {"attempt"}
    assert len(upstream.calls) == 3
    await built.aclose()


async def test_a_line_that_is_paid_is_answered_although_the_budget_is_spent(tmp_path: Path) -> None:
    built, exchange = direct(tmp_path, TellingUpstream(answer(USED)), {}, price=HALF, budget_pico_usd=BOUND)
    key = holder(built, exchange)
    assert (await take(built, key.id, paid=False, max_tokens=5)).answered
    assert isinstance(built.budgets, Budgets)
    account = built.budgets.account(key.budgets[0], time.time())
    account.spent = BOUND
    assert not (await take(built, key.id, paid=False)).answered
    assert (await take(built, key.id, paid=True)).answered
    assert account.spent == BOUND
    await built.aclose()


DEAR = {
    "kind": "chat",
    "upstream": {"url": "http://127.0.0.1:9/v1"},
    "price": {"input_usd_per_mtok": "10", "output_usd_per_mtok": "30", "batch_factor": "0.2"},
}


async def test_a_fallback_answers_a_line_at_its_own_price_for_batches(tmp_path: Path) -> None:
    others = {"dear": (TellingUpstream(answer(USED)), DEAR)}
    built, exchange = direct(
        tmp_path, TellingUpstream(BUSY), {}, others=others, price=HALF, fallbacks=["dear"]
    )
    assert (await take(built, holder(built, exchange).id, paid=False)).answered
    (row,) = [row for row in await rows(built) if row["category"] == "usage"]
    assert (row["model"], row["amount_pico_usd"]) == ("dear", 2 * (10 * IN + 5 * OUT))
    await built.aclose()


async def test_a_step_of_a_cascade_answers_a_line_at_its_own_price_for_batches(tmp_path: Path) -> None:
    others = {"dear": (TellingUpstream(answer(USED)), DEAR)}
    built, exchange = direct(
        tmp_path,
        TellingUpstream(answer(USED)),
        {},
        others=others,
        price=HALF,
        cascade=[{"model": "dear", "matches": "no"}],
    )
    assert (await take(built, holder(built, exchange).id, paid=False)).answered
    found = {row["model"]: row["amount_pico_usd"] for row in await rows(built)}
    assert found == {"dear": 2 * (10 * IN + 5 * OUT), "m": OWN}
    await built.aclose()


async def test_a_line_is_rerated_by_the_price_of_batches(tmp_path: Path) -> None:
    built, exchange = direct(tmp_path, TellingUpstream(answer(USED)), {}, price=HALF)
    await take(built, holder(built, exchange).id, paid=False)
    await built.front.run(exchange, Ear(None))  # and one single call beside it
    await asyncio.to_thread(built.store.flush)
    twice = {**HALF, "input_usd_per_mtok": "2", "output_usd_per_mtok": "6"}
    found = []
    for price in (HALF, twice, PRICE):
        described = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": price}
        settings = Settings.model_validate({"home": tmp_path, "models": {"m": described}})
        with built.store.reading() as connection:
            single, lines = (
                rerate.prices_of(settings, "settings", batched=batched) for batched in (False, True)
            )
            one, _ = rerate.find(connection, single, 0.0, time.time(), batch_prices=lines)
        found.append((one.rows, one.adjustments, one.amount))
    # Nothing; twice as much for both; the line as much as the single call.
    assert found == [(2, 0, 0), (2, 2, 3 * OWN), (2, 1, OWN)]
    await built.aclose()


@pytest.mark.parametrize(("tier", "amount"), [("default", OWN), ("flex", OWN // 2), ("batch", OWN)])
async def test_a_line_that_another_tier_answers_has_that_tiers_price(
    tmp_path: Path, tier: str, amount: int
) -> None:
    price = {**HALF, "flex_factor": "0.5"}
    built, exchange = direct(tmp_path, TellingUpstream(answer(USED, service_tier=tier)), {}, price=price)
    await take(built, holder(built, exchange).id, paid=False)
    (row,) = await rows(built)
    assert (row["rule"], row["amount_pico_usd"]) == ("usage", amount)
    await built.aclose()
