"""What a real PostgreSQL says when it is in trouble, and that no fact is set aside for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from store.test_contract import ask, charge

from trilith_gateway.store import postgres
from trilith_gateway.store.postgres import PostgresDatabase, PostgresStore


def test_of_all_that_a_server_can_say_only_what_is_wrong_with_facts_and_statements_is_final() -> None:
    told = {
        error.sqlstate: PostgresDatabase("").away(error(""))
        for error in vars(psycopg.errors).values()
        if isinstance(error, type) and issubclass(error, psycopg.Error) and error.sqlstate
    }
    assert len(told) > 200
    final = {state for state, away in told.items() if not away}
    # XQuery, case, cardinality, data, integrity, names of statements and cursors, syntax, checks, PL/pgSQL.
    classes = {"10", "20", "21", "22", "23", "26", "34", "42", "44", "P0"}
    assert {state[:2] for state in final} == classes
    assert {state for state in told if state[:2] in ("22", "23")} <= final
    no_table, no_right, no_schema, no_database, no_column = "42P01", "42501", "3F000", "3D000", "42703"
    assert final.isdisjoint({no_table, no_right, no_schema, no_database})
    assert no_column in final


@pytest.mark.parametrize("error", [psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError])
def test_errors_that_the_server_never_told_are_tried_again(error: type[Exception]) -> None:
    assert PostgresDatabase("").away(error("the connection is lost"))


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, KeyError])
def test_errors_of_our_own_are_not(error: type[Exception]) -> None:
    assert not PostgresDatabase("").away(error())


@pytest.fixture
def store(postgres_url: str, home: Path) -> Iterator[PostgresStore]:
    postgres.migrate(postgres_url)
    with closing(PostgresStore(postgres_url, home)) as store:
        yield store


@contextmanager
def renamed(url: str) -> Iterator[None]:
    """A table is gone, as in the middle of somebody's repair."""
    run(url, "alter table ledger rename to ledger_away")
    yield
    run(url, "alter table ledger_away rename to ledger")


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody holds a lock for longer than anybody waits."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    run(url, f"alter database {name} set lock_timeout = '50ms'")
    cut_off(url)
    with psycopg.connect(url) as holder:
        holder.execute("lock table ledger in access exclusive mode")
        yield


@contextmanager
def standby(url: str) -> Iterator[None]:
    """The server takes no writes, as one that has not taken over yet."""
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    run(url, f"alter database {name} set default_transaction_read_only = on")
    cut_off(url)
    yield
    run(url, f"set default_transaction_read_only = off; alter database {name} reset all")
    cut_off(url)


@contextmanager
def cut(url: str) -> Iterator[None]:
    """Every connection is cut, again and again."""
    for _ in range(5):
        cut_off(url)
        time.sleep(0.05)
    run(url, "alter table reservations rename to reservations_away")
    cut_off(url)
    yield
    run(url, "alter table reservations_away rename to reservations")


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements.split(";"):
            connection.execute(statement)


def cut_off(url: str) -> None:
    run(
        url,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()",
    )


@pytest.mark.parametrize("trouble", [renamed, locked, standby, cut])
def test_no_fact_is_set_aside_because_of_the_databases_own_trouble(
    store: PostgresStore, postgres_url: str, home: Path, trouble: Any
) -> None:
    store.append(charge(0))
    assert store.flush(20)
    with trouble(postgres_url):
        for number in range(1, 30):
            store.append(charge(number))
        assert not store.flush(1.5)
    assert store.flush(30)
    assert not (home / "journal" / "0" / "refused.jsonl").exists()
    assert ask(store, "select count(*), sum(amount_pico_usd) from ledger") == [(30, 210)]


def test_a_lease_is_told_that_the_database_is_away_and_is_given_when_it_is_back(
    store: PostgresStore, postgres_url: str
) -> None:
    with standby(postgres_url), pytest.raises(OSError, match="away"):
        store.lease("key:x", 0.0, 100, 10, 10)
    assert store.lease("key:x", 0.0, 100, 10, 10) == 10
