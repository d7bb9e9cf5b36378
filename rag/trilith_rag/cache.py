"""Vectors by the text that they were made from, so that no text is embedded twice. Holds no text."""

from __future__ import annotations

import hashlib
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from trilith.seams import Embedder

_SCHEMA = (
    "create table if not exists vectors (key text primary key, vector blob not null) strict, without rowid"
)
_BATCH = 128
_ASK = 500  # SQLite's limit on variables in one statement was 999 for long


class EmbeddingCache:
    """Embeds through a SQLite file; what a killed run has embedded is there for the next one."""

    def __init__(self, path: Path, embedder: Embedder) -> None:
        """Open or create the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._embedder = embedder
        self._connection = sqlite3.connect(path, timeout=30)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = normal")
        self._connection.execute(_SCHEMA)
        self.embedded = 0
        """How many texts were embedded through this object, not counting those that were found."""

    def key(self, text: str) -> str:
        """Return what a text's vector is kept under: a sha256 of embedder and text."""
        return hashlib.sha256(f"{self._embedder.fingerprint}\0{text}".encode()).hexdigest()

    def vectors(
        self, texts: Sequence[str], *, progress: Callable[[int], None] = lambda _: None
    ) -> list[list[float]]:
        """Return `(len(texts), dimension)` vectors, embedding those that are not kept yet.

        Args:
            texts: What to embed.
            progress: Told after each batch how many texts it embedded.
        """
        keys = [self.key(text) for text in texts]
        known = self._known(set(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        batch = sorted(missing.items(), key=lambda entry: len(entry[1]))
        for at in range(0, len(batch), _BATCH):
            part = batch[at : at + _BATCH]
            made = self._embedder.embed([text for _, text in part])
            rows = [(key, array("f", vector).tobytes()) for (key, _), vector in zip(part, made, strict=True)]
            with self._connection:
                self._connection.executemany("insert or replace into vectors values (?, ?)", rows)
            known.update((key, _floats(blob)) for key, blob in rows)
            self.embedded += len(part)
            progress(len(part))
        return [known[key] for key in keys]

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget all other vectors: of a removed document nothing stays."""
        with self._connection:
            self._connection.execute("create temp table wanted (key text primary key) strict")
            self._connection.executemany("insert or ignore into wanted values (?)", ((key,) for key in keys))
            self._connection.execute("delete from vectors where key not in (select key from wanted)")
            self._connection.execute("drop table wanted")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _known(self, keys: set[str]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        asked = sorted(keys)
        for at in range(0, len(asked), _ASK):
            part = asked[at : at + _ASK]
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(f"select key, vector from vectors where key in ({marks})", part)
            found.update((key, _floats(blob)) for key, blob in rows)
        return found


def _floats(blob: bytes) -> list[float]:
    vector = array("f")
    vector.frombytes(blob)
    return vector.tolist()
