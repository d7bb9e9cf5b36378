"""The ledger under kills, repeated facts, re-ratings and windows' edges, against a model of fifty lines."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from store.conftest import open_store
from store.test_contract import ask, charge, reserve

from trilith.money import Price, cost
from trilith.types import Usage
from trilith_gateway import rerate
from trilith_gateway.budget import Budgets, window
from trilith_gateway.store import lease
from trilith_gateway.store.home import HomeLock
from trilith_gateway.store.seam import Database
from trilith_gateway.store.sqlite import SqliteDatabase
from trilith_gateway.terms import Budget

DAY = 86_400.0
EDGE = 20_000 * DAY
TIMES = (EDGE - 1.0, EDGE - 0.001, EDGE, EDGE + 0.001, EDGE + DAY - 0.001, EDGE + DAY)
KEYS = ("a", "b")
PRICES = [
    Price(7, 11),
    Price(7, 11, cached_input_token=1),
    Price(0, 3),
    Price(1_000_000, 3_000_000, request=5),
]


@dataclass
class Charged:
    key: str
    at: float
    usage: Usage
    amount: int | None
    """None: unpriced."""


@dataclass
class Model:
    """What the ledger should hold."""

    rows: dict[str, Charged] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)

    def charge(self, id: str, row: Charged) -> None:
        self.rows.setdefault(id, row)
        self.open.discard(id)

    def rerate(self, price: Price, since: float) -> int:
        total = 0
        for row in self.rows.values():
            if row.at >= since:
                new = cost(row.usage, price)
                total += new - (row.amount or 0)
                row.amount = new
        return total

    def spent(self, key: str, since: float = 0.0, until: float = float("inf")) -> int:
        found = (row for row in self.rows.values() if row.key == key and since <= row.at < until)
        return sum(row.amount or 0 for row in found)


class LedgerMachine(RuleBasedStateMachine):
    url: str | None = None

    @initialize()
    def begin(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="trilith-state-"))
        self.model = Model()
        self.number = 0
        self.facts: list[dict[str, Any]] = []
        self.lock = HomeLock(self.home)
        self.open()

    def open(self) -> None:
        self.store = open_store(self.url, self.home, "0", self.lock.token)

    @property
    def database(self) -> Database:
        if self.url is None:
            return SqliteDatabase(self.home / "trilith.db")
        from trilith_gateway.store.postgres import PostgresDatabase

        return PostgresDatabase(self.url)

    @rule(
        key=st.sampled_from(KEYS),
        at=st.sampled_from(TIMES),
        asked=st.integers(0, 500),
        cached=st.integers(0, 500),
        said=st.integers(0, 500),
        priced=st.booleans(),
        tries=st.integers(0, 2),
    )
    def call(self, key: str, at: float, asked: int, cached: int, said: int, priced: bool, tries: int) -> None:
        self.number += 1
        used = Usage(asked, said, min(asked, cached))
        amount = cost(used, PRICES[0]) if priced else None
        held = reserve(self.number) | {"key_id": key}
        self.store.hold(held)
        for n in (*(f"c{self.number}.{t}" for t in range(1, tries + 1)), f"c{self.number}"):
            row = charge(0, amount) | {"id": n, "key_id": key, "team": key, "at": at, "rule": "usage"}
            counts = {"input_tokens": asked, "cached_input_tokens": used.cached_input_tokens}
            row |= counts | {"output_tokens": said, "reasoning_tokens": 0, "rows": 0}
            if "." in n:
                row["category"] = "attempt"
            self.facts.append(dict(row))
            self.store.append(row)
            self.model.charge(n, Charged(key, at, used, amount))

    @rule(at=st.integers(0, 1000))
    def repeat(self, at: int) -> None:
        """The same fact comes again, as from a journal that is read twice."""
        if self.facts:
            self.store.append(dict(self.facts[at % len(self.facts)]))

    @rule()
    def reserve_only(self) -> None:
        """A request that never ends, because its process is killed."""
        self.number += 1
        self.store.append(reserve(self.number))
        self.model.open.add(f"c{self.number}")

    @rule()
    def kill(self) -> None:
        """What is in memory is gone; what is in the journal is there."""
        self.store._facts.clear()
        self.store._journal._held.clear()
        self.store.close()
        self.model.open.clear()
        self.open()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.model.open.clear()
        self.open()

    @rule(price=st.sampled_from(PRICES), since=st.sampled_from((0.0, *TIMES)), twice=st.booleans())
    def rate_again(self, price: Price, since: float, twice: bool) -> None:
        self.store.flush()
        with closing(self.database.connect()) as connection:
            for time in range(1 + twice):
                done = rerate.apply(self.database, connection, lambda _: price, since, EDGE, None)
                assert done.amount == (0 if time else self.model.rerate(price, since))

    @invariant()
    def the_books_are_equal(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.flush(30)
        with self.store.reading() as connection:
            for key in KEYS:
                for at in TIMES:
                    assert lease.charged(connection, f"key:{key}", at) == self.model.spent(key, at)
        rows = ask(self.store, "select id from ledger where category <> 'adjustment'")
        assert sorted(row[0] for row in rows) == sorted(self.model.rows)
        opened = ask(self.store, "select id from reservations where state = 'open'")
        assert {row[0] for row in opened} == self.model.open

        budgets = Budgets(self.store.charged)
        for key in KEYS:
            found = budgets.account(Budget(f"key:{key}", 1, "day"), TIMES[-1])
            start, end = window("day", TIMES[-1])
            assert found.spent == self.model.spent(key, start, end)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.lock.close()
            shutil.rmtree(self.home, ignore_errors=True)


def test_the_ledger_is_what_its_model_says(url: str | None) -> None:
    class Machine(LedgerMachine):
        pass

    if url is not None:  # one server, whose tables every run begins with

        def begin(self: Any) -> None:
            from trilith_gateway.store.postgres import PostgresConnection

            with closing(PostgresConnection(url)) as connection:
                connection.execute("truncate ledger, reservations, leases, lease_windows, holders, leaders")
            LedgerMachine.begin(self)

        Machine.begin = initialize()(begin)  # type: ignore[method-assign]
    Machine.url = url
    few = url is not None
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=3 if few else 10,
            stateful_step_count=10 if few else 20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("id", ["c1", "c1.1"])
def test_a_try_does_not_close_the_reservation_of_its_request(opened: Any, id: str) -> None:
    store = opened()
    store.append(reserve(1))
    store.flush()
    store.append(charge(0) | {"id": id})
    store.flush()
    assert ask(store, "select count(*) from reservations") == [(0 if id == "c1" else 1,)]


def test_a_reservation_that_was_moved_to_another_release_is_closed_by_the_charge(opened: Any) -> None:
    store = opened()
    store.append(reserve(1))
    store.flush()
    store.append(reserve(1) | {"again": True})
    store.append(charge(1))
    store.flush()
    assert ask(store, "select count(*) from reservations") == [(0,)]
