"""Where an index and its ledger stand together: in generations on disk, or on a server with the book here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trilith.errors import DataError, IntegrityError
from trilith.seams import VectorIndex
from trilith.settings.schema import IndexSettings
from trilith_rag.generation import Generations, index_folder
from trilith_rag.index.edge import EdgeIndex
from trilith_rag.index.qdrant import QdrantIndex
from trilith_rag.ledger import Entry, Ledger


@dataclass(frozen=True, slots=True)
class Seen:
    """An index as it is before a run: what the book says, and what the store really holds."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)
    """Chunk id to document id, read from the store."""
    damaged: bool = False
    """The store is there but cannot be opened: it is built anew."""


class Shelf(Protocol):
    """Keeps an index and its ledger."""

    def look(self) -> Seen:
        """Read both, changing neither."""
        ...

    def change(self, seen: Seen, mean_length: float) -> AbstractContextManager[tuple[VectorIndex, Ledger]]:
        """Open both for writing; what is written counts when the block ends without an error."""
        ...

    def tidy(self) -> None:
        """Remove what no run and no reader needs any more."""
        ...


class EdgeShelf:
    """The engine in this process: a run writes a copy and publishes it, so readers never see half a run."""

    def __init__(self, folder: Path, *, dimension: int) -> None:
        """Take the index's folder and the length of its vectors."""
        self._generations = Generations(folder)
        self._dimension = dimension

    def look(self) -> Seen:
        """Read the present generation."""
        held = self._generations.hold()
        if held is None:
            return Seen(damaged=self._generations.current() is not None)
        generation, hold = held
        entries: Mapping[str, Entry] = {}
        facts: Mapping[str, str] = {}
        try:
            entries, facts = Ledger.read(generation / "ledger.db")
            index = EdgeIndex(generation / "shard", dimension=self._dimension, create=False)
            try:
                return Seen(entries, facts, index.ids())
            finally:
                index.close()
        except IntegrityError:
            return Seen(entries, facts, damaged=True)
        finally:
            os.close(hold)

    @contextmanager
    def change(self, seen: Seen, mean_length: float) -> Iterator[tuple[VectorIndex, Ledger]]:
        """Copy the present generation, hand it out, publish it."""
        made = self._generations.create(None if seen.damaged else self._generations.current())
        try:
            ledger = Ledger(made / "ledger.db")
            index = EdgeIndex(made / "shard", dimension=self._dimension, mean_length=mean_length)
            try:
                yield index, ledger
            finally:
                index.close()
                ledger.close()
            # The engine replays a journal at the first opening; doing it here, published files never change.
            EdgeIndex(made / "shard", dimension=self._dimension).close()
            self._generations.publish(made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def tidy(self) -> None:
        """Remove generations that nobody reads."""
        self._generations.sweep()


class ServerShelf:
    """A Qdrant server: chunks are replaced in place, document by document, with the book on this machine."""

    def __init__(self, folder: Path, settings: IndexSettings, name: str, *, dimension: int) -> None:
        """Take the ledger's folder, and where the collection is."""
        self._ledger = folder / "ledger.db"
        self._settings = settings
        self._name = name
        self._dimension = dimension

    def look(self) -> Seen:
        """Read the ledger and the collection's ids."""
        entries, facts = Ledger.read(self._ledger)
        try:
            index = self._open(create=False)
        except DataError:
            return Seen(entries, facts)
        try:
            return Seen(entries, facts, index.ids())
        finally:
            index.close()

    @contextmanager
    def change(self, seen: Seen, mean_length: float) -> Iterator[tuple[VectorIndex, Ledger]]:
        """Hand out the collection itself."""
        index = self._open(create=True, mean_length=mean_length)
        ledger = Ledger(self._ledger)
        try:
            yield index, ledger
        finally:
            ledger.close()
            index.close()

    def tidy(self) -> None:
        """Do nothing."""

    def _open(self, *, create: bool, mean_length: float | None = None) -> QdrantIndex:
        return server_index(
            self._settings, self._name, dimension=self._dimension, mean_length=mean_length, create=create
        )


def server_index(
    settings: IndexSettings,
    name: str,
    *,
    dimension: int,
    mean_length: float | None = None,
    create: bool = False,
) -> QdrantIndex:
    """Open the collection of an index whose settings name a server."""
    key = settings.qdrant_api_key
    return QdrantIndex(
        settings.qdrant_url or "",
        name,
        dimension=dimension,
        mean_length=mean_length,
        api_key=key.get_secret_value() if key else None,
        create=create,
    )


def open_shelf(settings: IndexSettings, home: Path, name: str, *, dimension: int) -> Shelf:
    """Return where the index `name` stands by its settings."""
    folder = index_folder(home, name)
    if settings.qdrant_url is None:
        return EdgeShelf(folder, dimension=dimension)
    return ServerShelf(folder, settings, name, dimension=dimension)
