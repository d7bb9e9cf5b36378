"""SQLite in WAL mode: the database of one machine."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from trilith_gateway.store import schema
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.store.seam import Connection, Leader

_MOST_ROWS = 128
"""Rows per statement. One statement steps once, and each step hands the interpreter's lock back and forth."""
_LEADS_S = 10.0
_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
}


class SqliteStore(JournalledStore):
    """Keys, ledger, reservations, audit, feedback and leases in one file."""

    def __init__(
        self,
        home: Path,
        *,
        worker: str = "0",
        token: str | None = None,
        durability: Literal["strict", "batched"] = "batched",
    ) -> None:
        """Open one worker's store, bringing the tables to the newest version; see `JournalledStore`."""
        home.mkdir(parents=True, exist_ok=True)
        self.path = database(home)
        ready(self.path)
        database_of = SqliteDatabase(self.path, synced=durability == "strict")
        super().__init__(home, database_of, worker=worker, token=token, durability=durability)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of the calling thread's own, for reading."""
        with contextlib.closing(connect(self.path)) as connection:
            yield connection


class SqliteDatabase:
    """What is particular to SQLite; see `Database`."""

    outside = False

    def __init__(self, path: Path, *, synced: bool = False) -> None:
        """Take the file; `synced`: what is committed is on the disk, so that the journal may forget it."""
        self._path = path
        self._synced = synced

    def connect(self) -> Connection:
        """Open a connection."""
        made = connect(self._path)
        if self._synced:
            made.execute("pragma synchronous = full")
        return cast(Connection, made)

    @contextlib.contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """A transaction that is the only writer from its begin."""
        connection.execute("begin immediate")
        try:
            yield
            connection.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back already
                connection.execute("rollback")
            raise

    def exclusive(self, connection: Connection, name: str) -> None:
        """Nothing to wait for: one transaction writes at a time."""

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert rows; those whose id is there already change nothing."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        at, size = 0, _MOST_ROWS
        while at < len(records):
            while size > len(records) - at:
                size //= 2  # few different statements, which stay prepared
            values = [record[name] for record in records[at : at + size] for name in columns]
            rows = ", ".join([f"({marks})"] * size)
            connection.execute(f"insert into {table} ({names}) values {rows} on conflict do nothing", values)
            at += size

    def now(self, connection: Connection) -> float:
        """Return the machine's clock, which all users of the file share."""
        return time.time()

    def changes(self, connection: Connection) -> int:
        """Return a number that changes when keys do."""
        return int(connection.execute("select value from meta where name = 'keys'").fetchone()[0])

    def alive(self, connection: Connection, holder: str) -> bool:
        """Always: the file lock tells who is dead, and the dead ask nothing."""
        return True

    def away(self, error: Exception) -> bool:
        """Whether to try again later."""
        code = getattr(error, "sqlite_errorcode", None)
        return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in _AWAY

    def leader(self, name: str, holder: str) -> Leader:
        """Return a holder's candidacy for some work."""
        return SqliteLeader(self, name, holder)


class SqliteLeader:
    """Leads while its row has not expired."""

    def __init__(self, database: SqliteDatabase, name: str, holder: str) -> None:
        self._database, self._name, self._holder = database, name, holder

    def acquire(self) -> bool:
        """Try to become the leader."""
        return self._change(
            "insert into leaders values (:name, :holder, :until) on conflict (name) do update"
            " set holder = :holder, until = :until where leaders.holder = :holder or leaders.until < :now"
        )

    def renew(self) -> bool:
        """Stay the leader."""
        return self._change(
            "update leaders set until = :until where name = :name and holder = :holder and until >= :now"
        )

    def resign(self) -> None:
        """Let another process lead."""
        self._change("delete from leaders where name = :name and holder = :holder")

    def _change(self, statement: str) -> bool:
        now = time.time()
        given = {"name": self._name, "holder": self._holder, "now": now, "until": now + _LEADS_S}
        with contextlib.closing(connect(self._database._path)) as connection:
            return connection.execute(statement, given).rowcount == 1


def database(home: Path) -> Path:
    """Return where the database of the platform in `home` is."""
    return home / "trilith.db"


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the settings that every user of the database shares."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    return connection


def create(path: Path) -> sqlite3.Connection:
    """Open the database for a command, making folder and tables when this is the first use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ready(path)
    return connect(path)


def ready(path: Path) -> None:
    """Make the tables, or bring them to the newest version; one process at a time.

    Raises:
        SettingsError: a later release wrote the database.
    """
    with (path.parent / "migration.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.closing(connect(path)) as connection:
            found = schema.version(cast(Connection, connection), postgres=False)
            if found is None:
                connection.executescript("begin immediate;" + schema.newest(postgres=False) + "commit;")
                return
            schema.refuse_newer(found, str(path))
        if found != schema.HEAD:
            from trilith_gateway.store.migration import upgrade  # Alembic: only when there is work for it

            upgrade(f"sqlite:///{path}")
