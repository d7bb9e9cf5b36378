"""Features looked up on the way: a call names an entity, and columns that it does not send are fetched."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import orjson

from trilith.errors import DataError

Features: TypeAlias = Mapping[str, Any]
"""Values by column: numbers, texts, booleans, or None."""
Row: TypeAlias = tuple[str, float, Features]
"""Entity, when it was so (seconds since 1970), and its features."""

_TABLE = """
create table if not exists feature (
    view text not null, entity text not null, event_at real not null, value blob not null,
    primary key (view, entity)
) without rowid
"""
_PUT = """
insert into feature values (?, ?, ?, ?)
on conflict do update set event_at = excluded.event_at, value = excluded.value
where excluded.event_at >= feature.event_at
"""
_MOST_AT_ONCE = 500


class FeatureSource(Protocol):
    """The newest features of entities, as one view of them."""

    def fetch(self, entities: Sequence[str]) -> list[Features | None]:
        """Return each entity's features, in order; None where it is not known. Blocking, short."""
        ...

    def put(self, rows: Iterable[Row]) -> None:
        """Take rows; one that is older than what is known of its entity changes nothing. Blocking."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


class MemoryFeatures:
    """Features in a dictionary."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[float, Features]] = {}

    def fetch(self, entities: Sequence[str]) -> list[Features | None]:
        """Return each entity's features."""
        found = (self._rows.get(entity) for entity in entities)
        return [None if row is None else row[1] for row in found]

    def put(self, rows: Iterable[Row]) -> None:
        """Take rows."""
        for entity, event_at, features in rows:
            if entity not in self._rows or event_at >= self._rows[entity][0]:
                self._rows[entity] = (event_at, dict(features))

    def close(self) -> None:
        """Do nothing."""


class SqliteFeatures:
    """Features in `<home>/features.db`: one row, and one read, per entity.

    Args:
        home: The platform's folder.
        view: Which set of features; one file holds many.
    """

    def __init__(self, home: Path, view: str) -> None:
        self._path = home / "features.db"
        self._view = view
        self._lock = threading.Lock()
        self._reading: sqlite3.Connection | None = None

    def fetch(self, entities: Sequence[str]) -> list[Features | None]:
        """Return each entity's features.

        Raises:
            DataError: the file cannot be read.
        """
        found: dict[str, Features] = {}
        wanted = list(dict.fromkeys(entities))
        try:
            with self._lock:
                connection = self._connected()
                for start in range(0, len(wanted), _MOST_AT_ONCE):
                    part = wanted[start : start + _MOST_AT_ONCE]
                    marks = ",".join("?" * len(part))
                    statement = f"select entity, value from feature where view = ? and entity in ({marks})"
                    for entity, value in connection.execute(statement, (self._view, *part)):
                        found[entity] = orjson.loads(value)
        except sqlite3.Error as error:
            raise DataError(f"{self._path} cannot be read as a feature table: {error}") from error
        return [found.get(entity) for entity in entities]

    def put(self, rows: Iterable[Row]) -> None:
        """Take rows, in one transaction."""
        packed = [(self._view, entity, at, orjson.dumps(dict(features))) for entity, at, features in rows]
        with closing(self._open()) as connection, connection:
            connection.executemany(_PUT, packed)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._reading is not None:
                self._reading.close()
                self._reading = None

    def _connected(self) -> sqlite3.Connection:
        if self._reading is None:
            self._reading = self._open()
        return self._reading

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=10, check_same_thread=False)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute(_TABLE)
        except sqlite3.Error:
            connection.close()
            raise
        return connection
