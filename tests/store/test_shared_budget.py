"""Budgets of three levels, spent by several processes at once, on either database."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store.test_contract import ask, charge

from trilith.errors import BudgetExceededError
from trilith_gateway.group import Groups, Team
from trilith_gateway.key import Key, mint
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.store import journalled, lease
from trilith_gateway.terms import Terms

CHILD = """
import random, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store.conftest import open_store
from store.test_contract import ask, charge
from store.test_shared_budget import KEYS
from trilith.errors import BudgetExceededError
from trilith_gateway.shared import LeasedBudgets
name = sys.argv[1]
store = open_store({url!r}, Path({home!r}), name, {token!r})
budgets, rng, refused, number = LeasedBudgets(store), random.Random(name), 0, 0
under_way = []
print("ready", flush=True)
sys.stdin.readline()
while refused < 300 or under_way:
    key = rng.choice(KEYS)
    if refused < 300:
        try:
            budgets.reserve(key, 40, 1_000.0)
            under_way.append(key)
        except BudgetExceededError:
            refused += 1
            for idle in budgets.idle() if refused % 20 == 0 else ():
                store.give_back(*idle)
    if under_way and (len(under_way) > 20 or refused >= 300 or rng.random() < 0.4):
        key, charged = under_way.pop(rng.randrange(len(under_way))), rng.randrange(41)
        fact = charge(number, charged, name + "-")
        store.append(fact | {{"key_id": key.id, "team": key.team, "org": key.org}})
        budgets.settle(key, 40, charged, 1_000.0)
        number += 1
store.flush()
print("done", flush=True)
sys.stdin.readline()
store.close()
"""


def _keys() -> list[Key]:
    groups = Groups(
        {"a": Team("a", "uni", terms=Terms(6_000, "total")), "b": Team("b", "uni")},
        {"uni": Terms(10_000, "total")},
    )
    made = [("k1", "a", Terms(4_000, "total")), ("k2", "a", Terms()), ("k3", "b", Terms())]
    return [replace(mint(id, team=team, terms=terms)[0], id=id).under(groups) for id, team, terms in made]


KEYS = _keys()


def test_several_processes_overshoot_no_level_and_use_nearly_all(
    opened: Any, url: str | None, home: Path
) -> None:
    store = opened()
    pipe = subprocess.PIPE
    tests = str(Path(__file__).parent.parent)
    code = CHILD.format(tests=tests, url=url, home=str(home), token=opened.token)
    children = [
        subprocess.Popen([sys.executable, "-c", code, name], stdin=pipe, stdout=pipe, text=True)
        for name in ("1", "2", "3")
    ]
    for word in ("ready\n", "done\n"):
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == word
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    spent = {name: store.charged(name, 0.0) for name in ("org:uni", "team:a", "key:k1")}
    assert spent["org:uni"] <= 10_000
    assert spent["team:a"] <= 6_000
    assert spent["key:k1"] <= 4_000
    assert spent["org:uni"] > 9_000


def test_a_process_that_is_taken_for_dead_again_and_again_counts_every_charge_once(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journalled, "_HEARTBEAT_S", 0.0)
    monkeypatch.setattr(journalled, "_POLL_S", 0.0)
    store = opened()
    budgets, rng = LeasedBudgets(store), random.Random(7)
    open_calls: list[Key] = []
    number = refused = 0
    while store.lease_epoch < 8 and number < 100_000:
        for _ in range(20):
            key = rng.choice(KEYS[:1])
            try:
                budgets.reserve(key, 3, 1_000.0)
                open_calls.append(key)
            except (OSError, BudgetExceededError):
                refused += 1  # given up by others, of which it hears soon; or all is spent
            if len(open_calls) > 3:
                key = open_calls.pop()
                fact = charge(number, amount := rng.randrange(2))
                store.append(fact | {"key_id": key.id, "team": key.team, "org": key.org})
                budgets.settle(key, 3, amount, 1_000.0)
                number += 1
        if rng.random() < 0.2:
            taken_for_dead(store)
    for key in open_calls:
        budgets.settle(key, 3, 0, 1_000.0)
    until = time.monotonic() + 20
    while not ask(store, "select 1 from holders"):
        assert time.monotonic() < until
    store.flush()
    budgets.reserve(KEYS[0], 0, 1_000.0)
    for _ in range(2):
        for debt in budgets.debts():
            store.pay(*debt)
        for idle in budgets.idle():
            store.give_back(*idle)
    store.flush()
    for account in KEYS[0].accounts:
        assert store.leased(account, 0.0) == store.charged(account, 0.0) > 0


def taken_for_dead(store: Any) -> None:
    """What the leader on another machine does with a holder that is silent."""
    with store.reading() as connection, store._database.transaction(connection):
        connection.execute("delete from holders where holder = ?", (store.holder,))
        lease.settle(connection, store.holder)
