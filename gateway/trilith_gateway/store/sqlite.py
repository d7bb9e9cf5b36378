"""The database: SQLite in WAL mode, one writer thread behind the journal, short-lived readers beside it."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from trilith.errors import SettingsError
from trilith_gateway.store.apply import apply
from trilith_gateway.store.journal import Journal, Record

_log = logging.getLogger(__name__)

_BATCH = 2000
_DELAY_S = 0.05
"""How far the tables may be behind the journal. Facts that come together are written together."""
_POLL_S = 0.5

_SCHEMA = """
create table if not exists keys (
    id text primary key, name text not null, team text not null, secret_sha256 text not null,
    budget_pico_usd integer, budget_window text not null, requests_per_minute integer,
    models text not null, created_at real not null, revoked_at real
) strict;
create table if not exists ledger (
    id text primary key, request_id text not null, at real not null, key_id text not null, team text not null,
    model text not null, kind text not null, release text not null, status integer not null,
    rule text not null, price text not null, amount_pico_usd integer,
    input_tokens integer not null, output_tokens integer not null, cached_input_tokens integer not null,
    reasoning_tokens integer not null, rows integer not null, requests integer not null,
    duration_ms real not null, first_byte_ms real, streamed integer not null
) strict;
create index if not exists ledger_by_key on ledger (key_id, at);
create index if not exists ledger_by_request on ledger (request_id);
create table if not exists reservations (
    id text primary key, key_id text not null, amount_pico_usd integer not null, at real not null,
    state text not null check (state in ('open', 'settled', 'lost'))
) strict;
create index if not exists reservations_open on reservations (state) where state = 'open';
create table if not exists audit (
    number integer primary key, id text not null unique, at real not null, event text not null,
    detail text not null, previous text not null, digest text not null
) strict;
create table if not exists feedback (
    id text primary key, request_id text not null, key_id text not null, at real not null,
    score real, label text, comment text
) strict;
create table if not exists meta (name text primary key, value text not null) strict;
"""


class SqliteStore:
    """Keys, ledger, reservations, audit and feedback of one gateway process.

    Writes are facts: `append` puts one into the journal (durable against the death of the process) and hands
    it to the writer thread; the tables follow within milliseconds. Facts are idempotent by id, so a replay
    after a crash changes nothing that is already there.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(home)
        self.path = database(home)
        self._journal = Journal(home / "journal")
        self.keys_changed = threading.Event()
        """Set when another process has changed the database, so keys must be read again."""
        connection = connect(self.path)
        connection.executescript(_SCHEMA)
        self._recover(connection)
        connection.close()
        self._facts: deque[tuple[int, Record] | threading.Event] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="trilith-store", daemon=True)
        self._writer.start()

    def append(self, record: Record) -> None:
        """Record one fact. On return it survives a kill -9 of this process.

        Raises:
            OSError: the disk refused it.
        """
        self._facts.append((self._journal.append(record), record))

    def hold(self, record: Record) -> None:
        """Record one fact that may be lost if the process is killed within the next 50 ms.

        Good for reservations: what a request may cost matters only if the process dies while it runs.
        """
        self._facts.append((self._journal.hold(record), record))

    def flush(self) -> None:
        """Wait until every fact so far is in the tables."""
        written = threading.Event()
        self._facts.append(written)
        self._wake.set()
        written.wait()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of the calling thread's own, for reading."""
        connection = connect(self.path)
        try:
            yield connection
        finally:
            connection.close()

    def close(self) -> None:
        """Write what is queued, then release the files."""
        self._closing = True
        self._wake.set()
        self._writer.join()
        self._journal.close()
        self._lock.close()

    def _recover(self, connection: sqlite3.Connection) -> None:
        """Apply what an earlier process journalled and did not write, and close the reservations it left."""
        with connection:
            connection.execute("begin immediate")
            apply(connection, self._journal.replay())
            lost = connection.execute("update reservations set state = 'lost' where state = 'open'").rowcount
        self._journal.drop_before(self._journal.segment)
        if lost:
            _log.warning("recovered: %d requests were under way when the last process died", lost)

    def _write(self) -> None:
        connection = connect(self.path)
        seen = _version(connection)
        segment = self._journal.segment
        polled = time.monotonic()
        while True:
            closing = self._closing
            self._wake.wait(timeout=_DELAY_S)
            self._wake.clear()
            with contextlib.suppress(OSError):  # whoever appends next is told
                self._journal.write_held()
            facts, written = self._take()
            if facts:
                self._commit(connection, [record for _, record in facts])
                if (reached := facts[-1][0]) > segment:
                    segment = reached
                    self._journal.drop_before(segment)
            for event in written:
                event.set()
            if closing and not facts:
                break
            if time.monotonic() - polled >= _POLL_S:
                polled = time.monotonic()
                if (version := _version(connection)) != seen:
                    seen = version
                    self.keys_changed.set()
        connection.close()

    def _take(self) -> tuple[list[tuple[int, Record]], list[threading.Event]]:
        """Return the next facts in order, and the events of those who wait for facts before them."""
        facts: list[tuple[int, Record]] = []
        waiting: list[threading.Event] = []
        while self._facts and len(facts) < _BATCH:
            item = self._facts.popleft()
            if isinstance(item, threading.Event):
                waiting.append(item)
            else:
                facts.append(item)
        if self._facts:
            self._wake.set()  # more than a batch: go on at once
        return facts, waiting

    def _commit(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        while True:  # the facts are in the journal; a busy or full database delays them, never drops them
            try:
                with connection:
                    connection.execute("begin immediate")
                    apply(connection, records)
                return
            except sqlite3.OperationalError as error:
                _log.error("the database did not take %d facts, trying again: %s", len(records), error)
                time.sleep(_POLL_S)


def database(home: Path) -> Path:
    """Return where the database of the platform in `home` is."""
    return home / "trilith.db"


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the settings that every user of the database shares."""
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = normal")
    return connection


def create(path: Path) -> sqlite3.Connection:
    """Open the database for a command, making folder and tables when this is the first use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path)
    connection.executescript(_SCHEMA)
    return connection


def _version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has written (PRAGMA data_version)."""
    return int(connection.execute("pragma data_version").fetchone()[0])


def _lock(home: Path) -> IO[str]:
    handle = (home / "gateway.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise SettingsError(
            f"another gateway runs on {home}, and a ledger has one writer. "
            "Stop that gateway, or give this one a `home` of its own"
        ) from error
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
