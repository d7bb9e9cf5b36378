"""An index that is read while others build it: every search sees the generation that is present then."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from trilith.errors import DataError, IntegrityError
from trilith.types import Hit
from trilith_rag.generation import Generations
from trilith_rag.index.edge import EdgeIndex
from trilith_rag.ledger import Ledger
from trilith_rag.sync import EMBEDDER

_log = logging.getLogger(__name__)


class LiveIndex:
    """Reads an index's present generation, and moves on to the next one when it is published."""

    def __init__(self, folder: Path, name: str, *, dimension: int, embedder: str) -> None:
        """Open the present generation.

        Args:
            folder: The index's folder.
            name: The index's name, for messages.
            dimension: Length of a vector.
            embedder: Fingerprint of the embedder that questions will be embedded with.

        Raises:
            DataError: the index was not built yet, or with another embedder.
            IntegrityError: it is damaged.
        """
        self._generations = Generations(folder)
        self._name = name
        self._dimension = dimension
        self._embedder = embedder
        self._lock = threading.Lock()
        self._refused: Path | None = None
        self._closed = False
        self._open: Path | None
        self._open, self._hold, self._index = self._opened()

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first."""
        with self._lock:
            if self._closed:
                raise DataError(f"the index {self._name!r} was closed")
            self._follow()
            return self._index.search(vector, text, limit=limit)

    def version(self) -> str | None:
        """Name the generation that a search would see; None when it is one that cannot be opened."""
        refused = self._refused is not None and self._refused == self._generations.current()
        return None if refused else self._generations.stamp()

    def close(self) -> None:
        """Release the files."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._index.close()
                os.close(self._hold)

    def _follow(self) -> None:
        current = self._generations.current()
        if current in (None, self._open, self._refused):
            return
        try:
            opened = self._opened()
        except (DataError, IntegrityError) as error:
            self._refused = current  # what is open goes on answering
            _log.error("index %s: the new generation is not taken up: %s", self._name, error)
            return
        self._index.close()
        os.close(self._hold)
        self._open, self._hold, self._index = opened

    def _opened(self) -> tuple[Path, int, EdgeIndex]:
        held = self._generations.hold()
        if held is None:
            raise DataError(f"the index {self._name!r} is not built yet; run: trilith ingest {self._name}")
        generation, hold = held
        try:
            _, facts = Ledger.read(generation / "ledger.db")
            made_with = facts.get(EMBEDDER, self._embedder)
            if made_with != self._embedder:
                raise DataError(
                    f"the index {self._name!r} was made with {made_with!r}, expected {self._embedder!r}; "
                    f"run: trilith ingest {self._name}"
                )
            return generation, hold, EdgeIndex(generation / "shard", dimension=self._dimension, create=False)
        except BaseException:
            os.close(hold)
            raise
