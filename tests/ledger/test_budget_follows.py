"""Budgets follow what is written beside the charges; the steps of one answer are paid by its caller."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.money import Ear
from ledger.test_cases import IN, OUT, USED, direct
from store.test_contract import ask, charge
from support.gateway import StartGateway
from support.told import TellingUpstream, answer

from trilith.money import Price
from trilith.types import Usage
from trilith_gateway import charge as charges
from trilith_gateway import rerate
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange
from trilith_gateway.front import Front
from trilith_gateway.rule import Rule
from trilith_gateway.store import sqlite

COST = 10 * IN + 5 * OUT


def test_a_running_gateway_takes_up_what_a_rerating_leaves_of_a_budget(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": TellingUpstream(answer(USED))})
    token = gateway.mint(budget_pico_usd=1000 * COST)
    body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    database = sqlite.SqliteDatabase(sqlite.database(gateway.home))
    with gateway.client(token=token) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        gateway.ledger()
        with closing(database.connect()) as connection:
            rerate.apply(database, connection, lambda _: Price(999 * IN, 999 * OUT), 0.0, time.time(), None)
        until = time.monotonic() + 20
        while client.post("/v1/chat/completions", json=body).status_code == 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        told = client.post("/v1/chat/completions", json=body).json()["error"]["code"]
    assert told == "insufficient_quota"


def test_what_is_leased_of_a_budget_follows_a_rerating(opened: Any) -> None:
    store = opened()
    row = charge(1, 30) | {"category": "usage", "input_tokens": 30, "cached_input_tokens": 0, "rows": 0}
    store.append(row | {"output_tokens": 0, "reasoning_tokens": 0, "requests": 0, "rule": "usage"})
    store.flush()
    assert store.lease("key:x", 0.0, 100, 10, 10) == 10  # opens the window: 30 are charged, 10 taken
    with store.reading() as connection:
        rerate.apply(store._database, connection, lambda _: Price(2), 0.0, 1.0, None)
    assert ask(store, "select sum(amount_pico_usd) from leases where account = 'key:x'") == [(70,)]
    assert store.lease("key:x", 0.0, 100, 1, 60) == 30


async def test_a_step_that_is_part_of_the_answer_is_a_row_and_its_caller_pays(tmp_path: Path) -> None:
    def first_step(exchange: Exchange) -> None:
        """As a cascade does: something answered, and was not enough."""
        charges.note(exchange, Rule.USAGE, 200, usage=Usage(10, 5), upstream="small", by_caller=True)

    built, exchange = direct(tmp_path, TellingUpstream(answer(USED)), {}, budget_pico_usd=1000 * COST)
    *before, call = built.pipeline.before
    stages = replace(built.pipeline, before=(*before, first_step, call))
    await Front(stages, built.metrics, None).run(exchange, Ear(None))
    assert isinstance(built.budgets, Budgets)
    assert built.budgets.account(exchange.caller.budgets[0], time.time()).spent == 2 * COST
    built.store.flush()
    assert built.store.charged("team:direct", 0.0) == 2 * COST
    rows = ask(built.store, "select attempt, category, upstream, team from ledger order by attempt")
    assert rows == [(1, "attempt", "small", "direct"), (2, "usage", "http://127.0.0.1:9/v1", "direct")]
    await built.aclose()
