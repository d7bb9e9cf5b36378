"""Budgets of three levels, spent by several processes at once, on either database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

CHILD = """
import random, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store.conftest import open_store
from store.test_contract import charge
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
            for account, since, amount in budgets.idle() if refused % 20 == 0 else ():
                store.give_back(account, since, amount)
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


def _keys() -> list[Any]:
    from dataclasses import replace

    from trilith_gateway.group import Groups, Team
    from trilith_gateway.key import mint
    from trilith_gateway.terms import Terms

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
