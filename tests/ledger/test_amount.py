"""Sums of more money than 64 bits hold, and numbers that no column takes, on either database."""

from __future__ import annotations

import io
import sqlite3
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store.test_contract import ask, charge
from support.gateway import StartGateway
from support.told import TellingUpstream, answer

from trilith.testing import MemoryUpstream
from trilith_gateway import enginecost, focus
from trilith_gateway.commands.costs import _GROUPS, _POSTGRES_DAY, spending
from trilith_gateway.commands.costs_detail import of_budget
from trilith_gateway.store import amount
from trilith_gateway.terms import Budget

MUCH = 9 * 10**18 + 999_999
"""A little less than a column holds."""


@pytest.fixture
def rich(opened: Any) -> Any:
    """A ledger with three such charges, one of them taken back but for a pico-dollar."""
    store = opened()
    used = {"category": "usage", "cached_input_tokens": 0, "saved_pico_usd": MUCH}
    for number, paid in enumerate((MUCH, MUCH, MUCH, 1 - MUCH)):
        store.append(charge(number, paid) | used)
    store.flush()
    return store


def test_a_sum_beyond_64_bits_is_exact_for_accounts_and_reports(rich: Any, url: str | None) -> None:
    day = _GROUPS["day"] if url is None else _POSTGRES_DAY
    assert rich.charged("key:x", 0.0) == rich.charged("team:x", 0.0) == 2 * MUCH + 1
    with rich.reading() as connection:
        (row,) = spending(connection, ["key"], postgres=url is not None)
        assert (row["amount_pico_usd"], row["saved_pico_usd"]) == (2 * MUCH + 1, 4 * MUCH)
        found = connection.execute(focus.statement(day), (0.0, float("inf"))).fetchall()
        (told,) = focus.rows(found, "acme")
        focus.write([told], io.StringIO())
        assert told["BilledCost"].replace(".", "") == str(2 * MUCH + 1)
        assert of_budget(connection, Budget("key:x", 5, "total"), 2.0).spent == 2 * MUCH + 1
        account = enginecost.Account("engine", 0, 3600, ("x",))
        assert enginecost._booked(connection, account, 0) == (2 * MUCH + 1, 0)


def test_a_budget_made_for_an_account_that_spent_more_than_any_budget_has_nothing_left(rich: Any) -> None:
    assert rich.lease("key:x", 0.0, amount.MOST, 1, 10) == 0
    assert rich.leased("key:x", 0.0) == amount.MOST
    assert rich.lease("key:x", 0.0, None, 10, 10) == 10
    assert rich.leased("key:x", 0.0) == amount.MOST
    rich.settle("key:x", 0.0)
    assert rich.lease("key:x", 0.0, amount.MOST, 1, 10) == 0


def test_what_several_holders_took_is_added_beyond_64_bits(opened: Any) -> None:
    one, two = opened("0"), opened("1")
    for store in (one, two):
        assert store.lease("key:x", 0.0, None, MUCH, MUCH) == MUCH
    assert one.leased("key:x", 0.0) == 2 * MUCH
    assert two.lease("key:x", 0.0, amount.MOST, 1, 1) == 0


@given(st.lists(st.integers(-amount.MOST, amount.MOST), max_size=20))
def test_the_two_parts_of_a_sum_make_it_whatever_the_signs(amounts: list[int]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("create table book (paid integer)")
    connection.executemany("insert into book values (?)", [(one,) for one in amounts])
    row = connection.execute(f"select {amount.total('paid')} from book").fetchone()
    connection.close()
    assert amount.read(row, "paid") == sum(amounts)


def test_a_request_that_could_cost_more_than_a_column_holds_stops_no_book(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(delay_s=0.3)})
    most = {"max_tokens": 10_000_000, "n": 10_000_000}
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with gateway.client() as client:
        for more in (most, {"max_tokens": 5}):
            assert client.post("/v1/chat/completions", json=body | more).status_code == 200
    assert gateway.platform.store.flush(10)
    assert [row["rule"] for row in gateway.ledger()] == ["usage", "usage"]
    assert gateway.rows("select * from reservations") == []


def test_a_usage_that_nobody_can_have_used_is_unpriced_and_a_row_all_the_same(
    start_gateway: StartGateway,
) -> None:
    used = {"prompt_tokens": 2**63, "completion_tokens": 2**64 - 1, "total_tokens": 2}
    gateway = start_gateway({"echo": TellingUpstream(answer(used))})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with gateway.client() as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    (row,) = gateway.ledger()
    assert (row["rule"], row["amount_pico_usd"]) == ("unpriced", None)
    assert len(gateway.rows("select * from audit where event = 'price.unknown'")) == 1


def test_a_record_that_cannot_be_written_keeps_no_other_from_the_tables(opened: Any) -> None:
    store = opened()
    for number, held in ((1, 2**64), (2, 9)):
        store.hold({"t": "reserve", "id": f"r{number}", "key_id": "x", "amount_pico_usd": held, "at": 1.0})
    until = time.monotonic() + 10
    while not ask(store, "select 1 from reservations where id = 'r2'"):
        assert time.monotonic() < until
        time.sleep(0.01)
