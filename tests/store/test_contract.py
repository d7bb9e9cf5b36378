from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trilith.errors import SettingsError
from trilith_gateway import group, key
from trilith_gateway.store import audit

KEYS = ("key_id", "team", "model", "kind", "release", "rule", "price")
COUNTS = "input_tokens output_tokens cached_input_tokens reasoning_tokens rows requests streamed".split()


def charge(number: int, amount: int | None = 7, prefix: str = "c") -> dict[str, Any]:
    id = f"{prefix}{number}"
    fixed = {"status": 200, "duration_ms": 1.0, "first_byte_ms": None}
    named = {"t": "charge", "id": id, "request_id": id, "at": 1.0, "amount_pico_usd": amount}
    return named | fixed | dict.fromkeys(KEYS, "x") | dict.fromkeys(COUNTS, 1)


def reserve(number: int, prefix: str = "c") -> dict[str, Any]:
    return {"t": "reserve", "id": f"{prefix}{number}", "key_id": "x", "amount_pico_usd": 9, "at": 1.0}


def note(number: int) -> dict[str, Any]:
    return {"t": "audit", "id": f"a{number}", "at": 1.0, "event": "pii.mask", "detail": {"PERSON": 1}}


def ask(store: Any, statement: str) -> list[tuple[Any, ...]]:
    with store.reading() as connection:
        return [tuple(row) for row in connection.execute(statement).fetchall()]


def taken(store: Any) -> int:
    return int(ask(store, "select coalesce(sum(amount_pico_usd), 0) from leases")[0][0])


def test_a_charge_settles_its_reservation_in_the_same_batch_or_later(opened: Any) -> None:
    store = opened()
    store.append(reserve(1))
    store.append(reserve(2))
    store.append(charge(1))
    store.flush()
    assert ask(store, "select id, state from reservations") == [("c2", "open")]
    store.append(charge(2))
    store.flush()
    assert ask(store, "select id from reservations") == []
    assert store.charged("key:x", 0.0) == store.charged("team:x", 1.0) == 14


def test_the_same_fact_twice_counts_once(opened: Any) -> None:
    store = opened()
    for fact in (charge(1), note(1), charge(1), note(1), reserve(1)):
        store.append(fact)
        store.flush()
    assert store.charged("key:x", 0.0) == 7
    assert ask(store, "select count(*) from audit") == [(1,)]
    assert ask(store, "select count(*) from reservations") == [(0,)]


def test_feedback_and_rows_are_read_by_name(opened: Any) -> None:
    store = opened()
    fact = {"t": "feedback", "id": "f1", "request_id": "c1", "key_id": "x", "at": 1.0}
    store.append(fact | {"score": 0.5, "label": None, "comment": "50 % ?"})
    store.flush()
    with store.reading() as connection:
        row = connection.execute("select * from feedback where id = ?", ("f1",)).fetchone()
    assert (row["score"], row["comment"], row[0]) == (0.5, "50 % ?", "f1")


def test_a_fact_that_fits_no_table_is_set_aside_and_the_others_go_on(opened: Any, home: Path) -> None:
    store = opened()
    for fact in (charge(1), charge(2) | {"team": None}, charge(3)):
        store.append(fact)
    store.flush()
    assert ask(store, "select id from ledger order by id") == [("c1",), ("c3",)]
    assert '"c2"' in (home / "journal" / "0" / "refused.jsonl").read_text(encoding="utf-8")


def test_two_workers_write_one_audit_chain(opened: Any) -> None:
    stores = [opened("0"), opened("1")]
    for number in range(40):
        stores[number % 2].append(note(number))
    for store in stores:
        store.flush()
    with stores[0].reading() as connection:
        assert audit.first_fault(connection) is None
    assert ask(stores[0], "select count(*), max(number) from audit") == [(40, 40)]


def test_a_changed_key_is_noticed_and_a_charge_is_not_taken_for_one(opened: Any) -> None:
    stores = [opened("0"), opened("1")]
    stores[1].append(charge(1))
    stores[1].flush()
    assert not stores[0].keys_changed.wait(1.2)
    with stores[1]._connected() as connection:
        key.save(connection, key.mint("k")[0])
    assert stores[0].keys_changed.wait(10)


@pytest.mark.parametrize("table", ["teams", "orgs"])
def test_a_changed_team_or_org_is_noticed_as_a_key_is(opened: Any, table: str) -> None:
    stores = [opened("0"), opened("1")]
    for change in (group.save, group.change):
        with stores[1]._connected() as connection:
            change(connection, table, "lab", {"budget_pico_usd": 5})
        assert stores[0].keys_changed.wait(10)
        stores[0].keys_changed.clear()


def test_a_lease_takes_between_at_least_and_wanted_of_what_is_left(opened: Any) -> None:
    one, two = opened("0"), opened("1")
    assert one.lease("key:x", 0.0, 100, 10, 60) == 60
    assert two.lease("key:x", 0.0, 100, 10, 60) == 40
    assert one.lease("key:x", 0.0, 100, 1, 5) == 0
    two.give_back("key:x", 0.0, 15, two.lease_epoch)
    assert one.lease("key:x", 0.0, 100, 16, 20) == 0
    assert one.lease("key:x", 0.0, 100, 15, 20) == 15
    assert one.lease("key:x", 0.0, None, 5, 5) == 5
    assert one.lease("team:x", 0.0, 100, 10, 60) == 60


def test_what_was_charged_before_anyone_leased_counts(opened: Any) -> None:
    store = opened()
    store.append(charge(1, 70))
    store.flush()
    assert store.lease("key:x", 0.0, 100, 10, 60) == 30


def test_a_lease_that_is_settled_counts_what_was_charged_by_all_while_there_was_no_budget(
    opened: Any,
) -> None:
    one, two, three = opened("0"), opened("1"), opened("2")
    assert one.lease("key:x", 0.0, 1000, 10, 60) == 60
    assert two.lease("key:x", 0.0, 1000, 10, 50) == 50
    for number, (store, amount) in enumerate(((one, 70), (two, 40), (three, 20))):
        store.append(charge(number, amount, "n"))
    for store in (two, three):
        store.flush()
    one.settle("key:x", 0.0)
    assert one.leased("key:x", 0.0) == 70 + 50 + 20  # of what another has leased some may be unspent


def test_one_process_leads_until_it_resigns(opened: Any) -> None:
    one, two = opened("0").leader("rollouts"), opened("1").leader("rollouts")
    assert one.acquire()
    assert not two.acquire()
    assert one.acquire()
    assert one.renew()
    one.resign()
    assert not one.renew()
    assert two.acquire()
    two.resign()


SPENDER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store.conftest import open_store
from store.test_contract import charge
name = sys.argv[1]
store = open_store({url!r}, Path({home!r}), name, {token!r})
print("ready", flush=True)
number = 0
while store.lease("key:x", 0.0, 5_000, 5, 40):
    for _ in range(3):
        store.append(charge(number, 1, name + "-"))
        number += 1
print("done", flush=True)
sys.stdin.read()
"""


def spender(opened: Any, url: str | None, home: Path, name: str) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parent.parent)
    code = SPENDER.format(tests=tests, url=url, home=str(home), token=opened.token)
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", code, name], stdin=pipe, stdout=pipe, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_processes_never_take_more_than_the_limit_and_the_lease_of_a_killed_one_becomes_its_charges(
    opened: Any, url: str | None, home: Path
) -> None:
    store = opened()
    children = [spender(opened, url, home, name) for name in ("1", "2", "3")]
    while taken(store) < 1_000:
        time.sleep(0.002)
    os.kill(children[0].pid, signal.SIGKILL)
    children[0].wait()
    for child in children[1:]:
        assert child.stdout is not None
        child.stdout.readline()
        assert taken(store) <= 5_000
    until = time.monotonic() + 20
    while time.monotonic() < until:  # whichever worker leads does it
        dead = ask(store, "select sum(amount_pico_usd) from leases where holder like '%/1'")[0][0]
        written = ask(store, "select count(*) from ledger where worker like '%/1'")[0][0]
        if dead == written > 0 and len(list((home / "journal" / "1").glob("*.jsonl"))) == 0:
            break
        time.sleep(0.1)
    assert dead == written
    assert taken(store) <= 5_000
    for child in children[1:]:
        child.communicate("")
    for child in children:
        for pipe in (child.stdin, child.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def test_a_second_gateway_is_refused_also_while_a_worker_of_a_killed_one_lives(
    opened: Any, home: Path
) -> None:
    from trilith_gateway.store.home import HomeLock

    with pytest.raises(SettingsError, match="another gateway"):
        HomeLock(home)


LEADER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store.conftest import open_store
store = open_store({url!r}, Path({home!r}), "9", {token!r})
leader = store.leader("rollouts")
assert leader.acquire()
print("leads", flush=True)
sys.stdin.read()
"""


def test_a_killed_leaders_right_goes_to_another_and_never_to_two(
    opened: Any, url: str | None, home: Path
) -> None:
    first, second = opened("0").leader("rollouts"), opened("1").leader("rollouts")
    tests = str(Path(__file__).parent.parent)
    code = LEADER.format(tests=tests, url=url, home=str(home), token=opened.token)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "leads\n"
        assert not first.acquire()
        assert not first.renew()
        child.kill()
    if url is None:  # a row that nobody renews any more; ten seconds are not waited for
        with opened("2").reading() as connection:
            connection.execute("update leaders set until = until - 11 where name = 'rollouts'")
    until = time.monotonic() + 20
    while not first.acquire():  # the server hears of the death a moment later
        assert time.monotonic() < until
    assert not second.acquire()
    assert first.renew()
    first.resign()
    assert second.acquire()
    assert not first.acquire()
    second.resign()


def test_a_leader_that_lost_its_right_hears_of_it_and_does_not_get_it_back_from_its_heir(
    opened: Any, url: str | None
) -> None:
    stores = opened("0"), opened("1")
    one, two = (store.leader("rollouts") for store in stores)
    assert one.acquire()
    with stores[1].reading() as connection:
        if url is None:
            connection.execute("update leaders set until = until - 11 where name = 'rollouts'")
        else:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = ?",
                (postgres_lock("rollouts") & 0xFFFFFFFF,),
            )
    until = time.monotonic() + 20
    while not two.acquire():
        assert time.monotonic() < until
    assert not one.renew()
    assert not one.acquire()
    assert two.renew()
    two.resign()
    assert one.acquire()
    one.resign()


def postgres_lock(name: str) -> int:
    from trilith_gateway.store import postgres

    return postgres._number(f"leader {name}")
