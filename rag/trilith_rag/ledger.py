"""What was read into an index: each document's digest and chunks, in a SQLite file beside the index."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from trilith.errors import IntegrityError

_SCHEMA = """
create table if not exists documents (
    path text primary key, digest text not null, fingerprint text not null, tokens integer not null,
    chunks text not null
) strict;
create table if not exists facts (name text primary key, value text not null) strict;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document as it was read in."""

    path: str
    digest: str
    """sha256 of the file's bytes."""
    fingerprint: str
    """Names the settings under which it was read, cut and embedded."""
    tokens: int
    """Length of its chunks together, as BM25 counts."""
    chunks: tuple[tuple[str, str], ...]
    """Id of each chunk, and the key of its vector in the embedding cache."""

    @property
    def ids(self) -> list[str]:
        """The chunks' ids."""
        return [id for id, _ in self.chunks]


class Ledger:
    """The book of one index; each `put` and `drop` is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=30)
        self._connection.executescript(_SCHEMA)

    @classmethod
    def read(cls, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
        """Return the entries by path and the facts by name; both empty when there is no book yet.

        Raises:
            IntegrityError: the file is damaged.
        """
        if not path.exists():
            return {}, {}
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return _entries(connection), _facts(connection)
        except (sqlite3.DatabaseError, ValueError) as error:
            raise IntegrityError(
                f"the ledger {str(path)!r} cannot be read ({error}); "
                "remove it, and the next run makes it anew"
            ) from error

    def entries(self) -> dict[str, Entry]:
        """Return all documents by path."""
        return _entries(self._connection)

    def put(self, entries: Iterable[Entry]) -> None:
        """Enter documents, replacing earlier entries of the same paths."""
        rows = [(e.path, e.digest, e.fingerprint, e.tokens, json.dumps(e.chunks)) for e in entries]
        with self._connection:
            self._connection.executemany("insert or replace into documents values (?, ?, ?, ?, ?)", rows)

    def drop(self, paths: Iterable[str]) -> None:
        """Strike documents out."""
        with self._connection:
            self._connection.executemany("delete from documents where path = ?", ((path,) for path in paths))

    def note(self, name: str, value: str) -> None:
        """Note a fact about the index as a whole."""
        with self._connection:
            self._connection.execute("insert or replace into facts values (?, ?)", (name, value))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _entries(connection: sqlite3.Connection) -> dict[str, Entry]:
    rows = connection.execute("select path, digest, fingerprint, tokens, chunks from documents")
    return {
        path: Entry(path, digest, fingerprint, tokens, tuple((id, key) for id, key in json.loads(chunks)))
        for path, digest, fingerprint, tokens, chunks in rows
    }


def _facts(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("select name, value from facts"))
