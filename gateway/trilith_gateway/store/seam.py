"""The seam to what the gateway keeps. SQLite and PostgreSQL stand behind it, under one contract suite."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from trilith_gateway.store.journal import Record


class Rows(Protocol):
    """What a statement returned. A row is read by position and by name."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return every row that is left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection to either database; `?` marks a parameter in both."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Leader(Protocol):
    """The right to do some periodic work, which one process at a time has."""

    def acquire(self) -> bool:
        """Try to become the leader; true when this process leads (also when it led before)."""
        ...

    def renew(self) -> bool:
        """Stay the leader; false when the right was lost."""
        ...

    def resign(self) -> None:
        """Let another process lead."""
        ...


class Store(Protocol):
    """Keys, ledger, reservations, audit, feedback and leases, as one worker of a gateway sees them."""

    holder: str
    """This worker's name in the ledger and in leases; no other process has it at the same time."""
    keys_changed: threading.Event
    """Set when another process has changed keys, so they must be read again."""

    def append(self, record: Record) -> None:
        """Record one fact. On return it survives a kill -9 of this process.

        Raises:
            OSError: the journal's disk refused it; the caller must not answer as if it were recorded.
        """
        ...

    def hold(self, record: Record) -> None:
        """Record one fact that may be lost if the process is killed within the next 50 ms."""
        ...

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every fact so far is in the tables; false when that took longer than `timeout_s`."""
        ...

    def reading(self) -> AbstractContextManager[Any]:
        """A connection of the calling thread's own, for reading."""
        ...

    def key_changes(self) -> int:
        """Return a number that changes when keys, teams or orgs do."""
        ...

    def charged(self, account: str, since: float) -> int:
        """Return the pico-USD that the ledger holds for an account (`key:ID`, `team:NAME`, `org:NAME`)."""
        ...

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        """Take money out of what is left in an account's window, atomically over all processes.

        What a holder has taken covers what it has charged since, so the amounts taken by all holders never
        exceed the limit, and neither does spending out of them. Charges that no lease covers (no limit, or
        costlier than expected) are booked by leasing them with `limit=None`.

        This method and the others about leases and charges raise OSError while the database is away.

        Args:
            account: `key:ID`, `team:NAME` or `org:NAME`.
            window_start: Unix time at which the budget's window begins.
            limit: the budget in pico-USD; None takes `wanted` whatever is left.
            at_least: take nothing at all if less than this is left.
            wanted: take no more than this.

        Returns:
            What was taken, between `at_least` and `wanted`; 0 when less than `at_least` is left.
        """
        ...

    def leased(self, account: str, window_start: float) -> int:
        """Return what all holders have taken of an account's window (pico-USD): at least what is spent."""
        ...

    def give_back(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Return a part of this holder's lease that it has not spent and will not spend.

        Nothing happens where `lease_epoch` is not `epoch` any more: that lease is settled.
        """
        ...

    def pay(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Take what is spent already, whatever is left; nothing where `epoch` is over."""
        ...

    def settle(self, account: str, window_start: float) -> None:
        """Make this holder's lease what it has charged, every fact so far included.

        And others' no less than what they have charged: whoever opens an account anew may have had no budget
        there for a while, and leased nothing.
        """
        ...

    def leases_valid(self, epoch: int) -> bool:
        """Whether what was leased under `lease_epoch == epoch` may still be spent."""
        ...

    @property
    def lease_epoch(self) -> int:
        """Changes when this holder was taken for dead, and its leases with it."""
        ...

    def leader(self, name: str) -> Leader:
        """Return this process's candidacy for some periodic work."""
        ...

    def sweep(self) -> list[str]:
        """Write what dead workers journalled, settle their leases by the ledger; returns their names."""
        ...

    def close(self) -> None:
        """Write what is queued, then release everything."""
        ...


class Database(Protocol):
    """What differs between the two databases."""

    outside: bool
    """Whether workers of other machines may use it, whose journals cannot be reached from here."""

    def connect(self) -> Connection:
        """Open a connection."""
        ...

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        """A transaction that no other writer's facts come into the middle of, where that matters."""
        ...

    def exclusive(self, connection: Connection, name: str) -> None:
        """Within a transaction, wait until no other transaction is exclusive on the same name."""
        ...

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert rows; those whose id is there already change nothing."""
        ...

    def now(self, connection: Connection) -> float:
        """Return the Unix time that all users of the database agree on."""
        ...

    def changes(self, connection: Connection) -> int:
        """Return a number that changes when keys do."""
        ...

    def alive(self, connection: Connection, holder: str) -> bool:
        """Within a transaction, whether a holder is not taken for dead, nor will be before its end."""
        ...

    def away(self, error: Exception) -> bool:
        """Whether an error means to try again later, not that a statement or a fact is wrong."""
        ...

    def leader(self, name: str, holder: str) -> Leader:
        """Return a holder's candidacy for some work."""
        ...


Facts = Iterable[Record]
