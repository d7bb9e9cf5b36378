"""A store that journals first: facts are on this machine's disk before anyone is answered, tables follow."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from trilith_gateway.store import lease
from trilith_gateway.store.apply import apply
from trilith_gateway.store.home import HomeLock, claim, instance, join
from trilith_gateway.store.journal import Journal, Record, read, segments
from trilith_gateway.store.seam import Connection, Database, Leader

_log = logging.getLogger(__name__)

_BATCH = 2000
_DELAY_S = 0.05
"""How far the tables may be behind the journal. Facts that come together are written together."""
_POLL_S = 0.5
_HEARTBEAT_S = 2.0
_WRITTEN_S = 5.0
"""How long somebody who needs all facts in the tables waits for that."""
_DEAD_S = 15.0
"""How long a holder on another machine may be silent before its leases are settled by the ledger."""


class JournalledStore:
    """One worker's view of either database.

    Facts are idempotent by id, so a replay after a crash changes nothing that is already there.
    """

    def __init__(
        self,
        home: Path,
        database: Database,
        *,
        worker: str = "0",
        token: str | None = None,
        durability: Literal["strict", "batched"] = "batched",
    ) -> None:
        """Open the store of one worker and write what its last run journalled.

        Args:
            home: The platform's folder.
            database: Where the tables are; they exist in the newest version.
            worker: The worker's name within its gateway.
            token: `HomeLock.token` of the gateway that the worker belongs to; None for a gateway of one.
            durability: "strict" waits for the disk at every charge, "batched" for the operating system.
        """
        home.mkdir(parents=True, exist_ok=True)
        self._home, self._database = home, database
        self._lock = HomeLock(home) if token is None else None
        with contextlib.ExitStack() as undo:
            if self._lock is not None:
                undo.callback(self._lock.close)
            self._share = join(home, token or (self._lock.token if self._lock else ""))
            undo.callback(self._share.close)
            self._folder = home / "journal" / worker
            claimed = claim(self._folder, wait=True)
            assert claimed is not None  # it waited
            self._claim = claimed
            undo.callback(claimed.close)
            self.holder = f"{instance(home)}/{worker}"
            self._start(durability)
            undo.pop_all()

    def _start(self, durability: str) -> None:
        self.keys_changed = threading.Event()
        self._connection = self._database.connect()  # for leases and other short work, under its lock
        self._using = threading.Lock()
        _recover(self._database, self._connection, self._folder, self.holder)
        self._journal = Journal(self._folder, sync=durability == "strict")
        self._facts: deque[tuple[int, Record] | threading.Event] = deque()
        self._wake = threading.Event()
        self._epoch = 0
        self._beat = float("-inf")
        self._seen = self._database.changes(self._connection)
        self._heartbeat(self._connection)
        self._sweep(self._connection)
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

        Good for reservations: what a request may cost matters only if the process dies while it runs. One
        that is charged sooner is never written at all.
        """
        self._journal.hold(record)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every fact so far is in the tables; false when that took longer than `timeout_s`."""
        written = threading.Event()
        self._facts.append(written)
        self._wake.set()
        return written.wait(timeout_s)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Any]:
        """A connection of the calling thread's own, for reading; OSError while the database is away."""
        with self._telling(), contextlib.closing(self._database.connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Any]:
        """A transaction on a connection of the calling thread's own; OSError while the database is away."""
        with (
            self._telling(),
            contextlib.closing(self._database.connect()) as connection,
            self._database.transaction(connection),
        ):
            yield connection

    def key_changes(self) -> int:
        """Return a number that changes when keys, teams, orgs or the ledger's past do."""
        with self._telling(), self._connected() as connection:
            return self._database.changes(connection)

    def charged(self, account: str, since: float) -> int:
        """Return the pico-USD that the ledger holds for an account since a Unix time."""
        with self._telling(), self.reading() as connection:
            return lease.charged(connection, account, since)

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        """Take money out of what is left in an account's window; see `Store.lease`."""
        lease.condition(account)
        with self._telling(), self._connected() as connection:
            return lease.take(
                self._database, connection, self.holder, account, window_start, limit, at_least, wanted
            )

    def leased(self, account: str, window_start: float) -> int:
        """Return what all holders have taken of an account's window."""
        with self._telling(), self._connected() as connection:
            return lease.taken(connection, account, window_start)

    def give_back(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Return a part of this holder's lease that it has not spent and will not spend."""
        with self._telling(), self._connected() as connection:
            if epoch == self._epoch:
                lease.give_back(self._database, connection, self.holder, account, window_start, amount)

    def pay(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Take what is spent already, whatever is left."""
        with self._telling(), self._connected() as connection:
            if epoch == self._epoch:
                lease.take(
                    self._database, connection, self.holder, account, window_start, None, amount, amount
                )

    def settle(self, account: str, window_start: float) -> None:
        """Make this holder's lease what it has charged; see `Store.settle`."""
        if not self.flush(_WRITTEN_S):
            raise OSError("the database is behind: what was charged is not in it yet")
        with self._telling(), self._connected() as connection, self._database.transaction(connection):
            self._database.exclusive(connection, f"lease {account}")
            lease.settle_one(connection, self.holder, account, window_start)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell callers of any database alike that it is away."""
        try:
            yield
        except Exception as error:
            if not self._database.away(error):
                raise
            raise OSError(f"the database is away: {error}") from error

    @property
    def lease_epoch(self) -> int:
        """Changes when this holder was taken for dead, and its leases with it."""
        return self._epoch

    def leases_valid(self, epoch: int) -> bool:
        """Whether what was leased under `lease_epoch == epoch` may still be spent."""
        return epoch == self._epoch and (
            not self._database.outside or time.monotonic() < self._beat + _DEAD_S
        )

    def leader(self, name: str) -> Leader:
        """Return this process's candidacy for some periodic work."""
        return self._database.leader(name, self.holder)

    def sweep(self) -> list[str]:
        """Write what dead workers journalled, settle their leases by the ledger; returns their names."""
        with contextlib.closing(self._database.connect()) as connection:
            return self._sweep(connection)

    def _sweep(self, connection: Connection) -> list[str]:
        # Not on the connection for leases: who needs one need not wait until a long journal is read.
        swept = [*self._sweep_home(connection)]
        if self._database.outside:
            swept += self._sweep_elsewhere(connection)
        return swept

    def close(self) -> None:
        """Write what is queued, then release the files."""
        self._closing = True
        self._wake.set()
        self._writer.join()
        self._journal.close()
        for part in (self._connection, self._claim, self._share):
            part.close()
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._using:
            if self._database.outside:
                self._reconnect()
            yield self._connection

    def _reconnect(self) -> None:
        """Make sure of the connection: a server that was restarted left a dead one here."""
        if time.monotonic() < self._silent_until:  # whoever needs it must not wait each time
            raise OSError("the database did not answer a moment ago")
        try:
            self._connection.execute("select 1")
        except Exception as error:
            if not self._database.away(error):
                raise
            self._connection.close()
            try:
                self._connection = self._database.connect()
            except Exception:
                self._silent_until = time.monotonic() + _POLL_S
                raise

    def _sweep_home(self, connection: Connection) -> Iterator[str]:
        root = self._home / "journal"
        for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            if folder == self._folder or not segments(folder) or (held := claim(folder, wait=False)) is None:
                continue
            with held:
                name = folder.name if folder != root else "0"  # an earlier release journalled in the root
                _recover(self._database, connection, folder, f"{instance(self._home)}/{name}")
                yield name

    def _sweep_elsewhere(self, connection: Connection) -> list[str]:
        with self._database.transaction(connection):
            now = self._database.now(connection)
            found = connection.execute("select holder from holders where seen < ?", (now - _DEAD_S,))
            own = instance(self._home) + "/"
            dead = [row[0] for row in found.fetchall() if not row[0].startswith(own)]
            for holder in dead:
                # First its row: whoever leases for it at the moment ends before, and nobody begins after.
                connection.execute("delete from holders where holder = ?", (holder,))
                lease.settle(connection, holder)
            lease.forget(connection, now)
        return dead

    def _heartbeat(self, connection: Connection) -> None:
        begun = time.monotonic()
        with self._database.transaction(connection):
            now = self._database.now(connection)
            seen = connection.execute("update holders set seen = ? where holder = ?", (now, self.holder))
        if not seen.rowcount:  # new, or taken for dead
            self._revive(connection)
        self._beat = begun

    def _revive(self, connection: Connection) -> None:
        """Enter among the holders; what was leased before becomes what was charged.

        The ledger must have every fact by then. What is recorded from here on finds the new epoch, and
        whoever books it settles again: see `LeasedBudgets`.
        """
        while self._facts:
            self._write_batch(connection, self._written)
        with self._using:  # no lease is taken or given back meanwhile
            while self._facts:
                self._write_batch(connection, self._written)
            with self._database.transaction(connection):
                now = self._database.now(connection)
                connection.execute("insert into holders values (?, ?)", (self.holder, now))
                lease.settle(connection, self.holder)
            self._epoch += 1

    def _write(self) -> None:
        connection: Connection | None = None
        segment, seen, polled = self._journal.segment, self._seen, 0.0
        leader = self.leader("store")
        while True:
            closing = self._closing
            self._wake.wait(timeout=_DELAY_S)
            self._wake.clear()
            try:
                with contextlib.suppress(OSError):  # whoever appends next is told
                    self._facts.extend(self._journal.write_held())
                if connection is None:
                    connection = self._database.connect()
                if not self._write_batch(connection, segment) and closing:
                    break
                if self._written > segment:
                    segment = self._written
                    self._journal.drop_before(segment)
                if not closing and time.monotonic() - polled >= _POLL_S:
                    polled = time.monotonic()
                    seen = self._poll(connection, seen, leader)
            except Exception as error:
                if not self._database.away(error):
                    _log.exception("the store's periodic work failed")
                else:
                    _log.error("the database is away, the journal waits: %s", error)
                if closing:  # the next run replays the journal
                    break
                if connection is not None and self._database.outside:
                    connection.close()
                    connection = None
                time.sleep(_POLL_S)
        with contextlib.suppress(Exception):
            leader.resign()
        if connection is not None:
            connection.close()

    _written = 0
    _silent_until = 0.0

    def _poll(self, connection: Connection, seen: int, leader: Leader) -> int:
        changes = self._database.changes(connection)
        if changes != seen:
            self.keys_changed.set()
        if time.monotonic() - self._beat >= _HEARTBEAT_S:
            self._heartbeat(connection)
            if leader.acquire():
                self._sweep(connection)
        return changes

    def _write_batch(self, connection: Connection, segment: int) -> int:
        """Write the next facts and tell those who wait for them; returns how many there were."""
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
        try:
            if facts:
                _commit(self._database, connection, [fact for _, fact in facts], self.holder, self._folder)
                self._written = max(segment, facts[-1][0])
        except Exception:  # they stay in memory as in the journal, in order
            self._facts.extendleft(reversed([*facts, *waiting]))
            raise
        for event in waiting:
            event.set()
        return len(facts)


def _recover(database: Database, connection: Connection, folder: Path, holder: str) -> None:
    """Write what a dead worker journalled, close its reservations, settle its leases, drop its journal."""
    paths = segments(folder)
    facts = read(paths)
    while part := list(itertools.islice(facts, _BATCH)):
        _commit(database, connection, part, holder, folder)
    with database.transaction(connection):
        lost = connection.execute(
            "update reservations set state = 'lost' where state = 'open' and worker in (?, '')", (holder,)
        ).rowcount
        lease.settle(connection, holder)
    for path in paths:
        path.unlink()
    if lost:
        _log.warning("recovered: %d requests were under way when worker %s died", lost, holder)


def _commit(
    database: Database, connection: Connection, records: Sequence[Record], holder: str, folder: Path
) -> None:
    """Write facts in one transaction; one that no table can take is set aside, and the rest go on."""
    try:
        with database.transaction(connection):
            apply(database, connection, records, holder)
    except Exception as error:
        if database.away(error):
            raise
        if len(records) > 1:
            for record in records:
                _commit(database, connection, [record], holder, folder)
            return
        _log.error("a fact fits no table and is kept in refused.jsonl: %s", error)
        with (folder / "refused.jsonl").open("ab") as file:
            file.write(orjson.dumps(records[0], option=orjson.OPT_APPEND_NEWLINE))
