"""An in-memory vector index: the twin of Qdrant."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trilith.types import Chunk, Hit


class MemoryIndex:
    """Finds by cosine plus the share of the question's words in a passage. For tests, not for size."""

    def __init__(self, *, dimension: int) -> None:
        """Take the length of the vectors."""
        self._dimension = dimension
        self._stored: dict[str, tuple[Chunk, list[float]]] = {}

    def upsert(self, chunks: Sequence[Chunk], vectors: Sequence[Sequence[float]]) -> None:
        """Add or replace chunks by id.

        Raises:
            ValueError: another number of vectors than chunks, or a vector of another length.
        """
        if len(chunks) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors for {len(chunks)} chunks; expected one for each")
        for vector in vectors:
            if len(vector) != self._dimension:
                raise ValueError(f"found {len(vector)} dimensions; expected the index's {self._dimension}")
        for chunk, vector in zip(chunks, vectors, strict=True):
            self._stored[chunk.id] = (chunk, list(vector))

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Remove chunks by id; unknown ids are ignored."""
        for id in chunk_ids:
            self._stored.pop(id, None)

    def ids(self) -> dict[str, str]:
        """Return every stored chunk id with its document id."""
        return {id: chunk.document_id for id, (chunk, _) in self._stored.items()}

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first; equal scores in the order of their ids."""
        asked = _words(text)
        hits = []
        for chunk, stored in self._stored.values():
            similarity = float(sum(a * b for a, b in zip(vector, stored, strict=True)))
            held = _words(f"{chunk.title} {chunk.heading} {chunk.text}")
            overlap = len(asked & held) / len(asked) if asked else 0.0
            hits.append(Hit(chunk, similarity + overlap, similarity))
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))[:limit]

    def close(self) -> None:
        """Do nothing: what is stored stays until the object goes."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
