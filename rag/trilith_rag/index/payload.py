"""How a chunk is stored beside its vectors, the same in every Qdrant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trilith.errors import IntegrityError
from trilith.types import Chunk, Hit

DENSE = "dense"
BM25 = "bm25"
PREFETCH = 200
"""Candidates that each of the two searches hands to the fusion."""
SPARE = 16
"""Further hits to ask for, so that equal scores at the cut are broken here and not by the engine."""


def payload(chunk: Chunk) -> dict[str, Any]:
    """Return what is stored with a chunk's vectors."""
    return {
        "document_id": chunk.document_id,
        "path": chunk.path,
        "title": chunk.title,
        "heading": chunk.heading,
        "text": chunk.text,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
    }


def chunk_of(id: str, stored: Mapping[str, Any]) -> Chunk:
    """Return the chunk that a payload describes."""
    return Chunk(
        id=id,
        document_id=stored["document_id"],
        path=stored["path"],
        title=stored["title"],
        text=stored["text"],
        start=stored["start"],
        end=stored["end"],
        page=stored.get("page"),
        heading=stored.get("heading", ""),
    )


def document_of(id: str, stored: Mapping[str, Any] | None) -> str:
    """Return the document id in a payload.

    Raises:
        IntegrityError: the point is not one of ours, so nothing here may be replaced or deleted.
    """
    if not stored or "document_id" not in stored:
        raise IntegrityError(
            f"point {id!r} was not stored by Trilith; expected an index of its own, "
            "choose another name for this one in the settings"
        )
    return str(stored["document_id"])


def checked(chunks: Sequence[Chunk], vectors: Sequence[Sequence[float]], dimension: int) -> None:
    """Refuse vectors that do not fit their chunks or the index.

    Raises:
        ValueError: another number of vectors than chunks, or a vector of another length.
    """
    if len(chunks) != len(vectors):
        raise ValueError(f"{len(vectors)} vectors for {len(chunks)} chunks; expected one for each")
    for chunk, vector in zip(chunks, vectors, strict=True):
        if len(vector) != dimension:
            raise ValueError(
                f"chunk {chunk.id!r} has {len(vector)} dimensions; expected the index's {dimension}"
            )


def ranked(hits: list[Hit], limit: int) -> list[Hit]:
    """Return the best `limit` hits, equal scores in the order of their ids."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk.id))[:limit]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two unit-length vectors."""
    return float(sum(a * b for a, b in zip(one, other, strict=True)))
