"""PostgreSQL: the database of gateways on several machines. The journal stays on each machine's own disk."""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import orjson

from trilith.errors import SettingsError
from trilith.extras import need
from trilith_gateway.store import schema
from trilith_gateway.store.journalled import JournalledStore
from trilith_gateway.store.seam import Connection, Leader, Rows

psycopg = need("psycopg", extra="postgres")

_TIMEOUTS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A machine that vanished says nothing: a query to it ends after so long, not after a quarter of an hour."""
_BEING_MENDED = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InvalidCatalogName,
)


class PostgresStore(JournalledStore):
    """Keys, ledger, reservations, audit, feedback and leases in PostgreSQL."""

    def __init__(
        self,
        url: str,
        home: Path,
        *,
        worker: str = "0",
        token: str | None = None,
        durability: Literal["strict", "batched"] = "batched",
    ) -> None:
        """Open one worker's store; see `JournalledStore`.

        Raises:
            SettingsError: the database is not there, or its tables are not of this release's version.
        """
        check(url)
        super().__init__(home, PostgresDatabase(url), worker=worker, token=token, durability=durability)


class Row(tuple[Any, ...]):
    """A row that is read by position and by name, as SQLite's are."""

    names: tuple[str, ...]

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(self.names.index(at) if isinstance(at, str) else at)

    def keys(self) -> list[str]:
        """Return the columns' names."""
        return list(self.names)


def _rows(cursor: Any) -> Any:
    names = tuple(column.name for column in cursor.description or ())
    made = type("Row", (Row,), {"names": names})
    return made


class PostgresConnection:
    """A connection that takes SQLite's way of marking parameters."""

    def __init__(self, url: str) -> None:
        self.raw = psycopg.connect(url, autocommit=True, row_factory=_rows, **_TIMEOUTS)
        self.raw.adapters.register_loader("numeric", _whole())

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        """Run one statement."""
        return cast(Rows, self.raw.execute(statement.replace("%", "%%").replace("?", "%s"), parameters))

    def close(self) -> None:
        """Close it."""
        self.raw.close()


def _whole() -> Any:
    class Whole(psycopg.adapt.Loader):  # type: ignore[misc, name-defined]
        """Sums of integers are `numeric` to PostgreSQL, and stay integers to us."""

        def load(self, data: Any) -> int | float:
            text = bytes(data).decode()
            return int(text) if re.fullmatch(r"-?\d+", text) else float(text)

    return Whole


class PostgresDatabase:
    """What is particular to PostgreSQL; see `Database`."""

    outside = True

    def __init__(self, url: str) -> None:
        self._url = url

    def connect(self) -> Connection:
        """Open a connection."""
        return PostgresConnection(self._url)

    def transaction(self, connection: Connection) -> contextlib.AbstractContextManager[object]:
        """A transaction."""
        return cast(PostgresConnection, connection).raw.transaction()  # type: ignore[no-any-return]

    def exclusive(self, connection: Connection, name: str) -> None:
        """Wait until no other transaction is exclusive on the same name."""
        connection.execute("select pg_advisory_xact_lock(?)", (_number(name),))

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], records: Sequence[Mapping[str, Any]]
    ) -> None:
        """Insert rows, which travel as one JSON text; those whose id is there already change nothing."""
        if not records:
            return
        names = ", ".join(columns)
        connection.execute(
            f"insert into {table} ({names}) select {names}"
            f" from json_populate_recordset(null::{table}, ?::json) on conflict do nothing",
            (orjson.dumps(records).decode(),),
        )

    def now(self, connection: Connection) -> float:
        """Return the server's clock."""
        row = connection.execute("select extract(epoch from clock_timestamp())::double precision").fetchone()
        return float(row[0])

    def changes(self, connection: Connection) -> int:
        """Return a number that changes when keys do."""
        return int(connection.execute("select value from meta where name = 'keys'").fetchone()[0])

    def alive(self, connection: Connection, holder: str) -> bool:
        """Whether its row is there; it stays to the end of the transaction, though its heart may beat."""
        found = connection.execute("select 1 from holders where holder = ? for key share", (holder,))
        return found.fetchone() is not None

    def away(self, error: Exception) -> bool:
        """Whether to try again later: all but what is wrong with the facts themselves.

        A standby that has not taken over yet, for one, is an internal error to PostgreSQL; a table that
        somebody repairs just now, or that may not be written yet, is one of the statement, no fact's fault.
        """
        if isinstance(error, _BEING_MENDED):
            return True
        return isinstance(error, psycopg.Error) and not isinstance(
            error, psycopg.DataError | psycopg.IntegrityError | psycopg.ProgrammingError
        )

    def leader(self, name: str, holder: str) -> Leader:
        """Return a holder's candidacy for some work."""
        return PostgresLeader(self._url, name)


class PostgresLeader:
    """Leads while its session holds an advisory lock: a death frees it at once."""

    def __init__(self, url: str, name: str) -> None:
        self._url, self._number = url, _number(f"leader {name}")
        self._session: PostgresConnection | None = None

    def acquire(self) -> bool:
        """Try to become the leader."""
        if self._session is not None and self.renew():
            return True
        session = PostgresConnection(self._url)
        try:
            if session.execute("select pg_try_advisory_lock(?)", (self._number,)).fetchone()[0]:
                self._session = session
        finally:
            if self._session is not session:
                session.close()
        return self._session is session

    def renew(self) -> bool:
        """Stay the leader; false when the session is gone, and the lock with it."""
        if self._session is None:
            return False
        try:
            self._session.execute("select 1")
        except psycopg.Error:
            self.resign()
            return False
        return True

    def resign(self) -> None:
        """Let another process lead."""
        if self._session is not None:
            self._session.close()
            self._session = None


def check(url: str) -> None:
    """Refuse a database that this release cannot work with.

    Raises:
        SettingsError: it is not there, or has another version.
    """
    place = shown(url)
    try:
        with contextlib.closing(PostgresConnection(url)) as connection:
            found = schema.version(connection, postgres=True)
    except psycopg.OperationalError as error:
        raise SettingsError(
            f"store.url: PostgreSQL does not answer at {place}: {str(error).strip()}. "
            "Start it, or correct the address"
        ) from error
    if found is not None:
        schema.refuse_newer(found, place)
    if found != schema.HEAD:
        raise SettingsError(
            f"store.url: the database at {place} has version {found or 'none'}, and this release needs "
            f"{schema.HEAD}. Run: trilith store migrate"
        )


def migrate(url: str) -> None:
    """Bring a database to the newest version; an empty one gets all tables."""
    from trilith_gateway.store.migration import upgrade

    with contextlib.closing(PostgresConnection(url)) as connection:
        found = schema.version(connection, postgres=True)
    if found is not None:
        schema.refuse_newer(found, shown(url))
    upgrade(re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url))


def shown(url: str) -> str:
    """Return an address without its password."""
    return re.sub(r"//[^@/]*@", "//***@", url)


def _number(name: str) -> int:
    return 0x7472_0000_0000 + zlib.crc32(name.encode())
