"""Finds the passages for a question: hybrid search, then neighbours joined and doubles left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from opentelemetry.trace import Tracer

from trilith.seams import Embedder
from trilith.settings.schema import IndexSettings
from trilith.telemetry import names, span
from trilith.types import Chunk, Hit
from trilith_rag.embedder import MiniLmEmbedder
from trilith_rag.generation import index_folder
from trilith_rag.live import LiveIndex
from trilith_rag.shelf import server_index

_WIDER = 3
"""How many times more hits are asked for than wanted: some are doubles or join their neighbours."""


class Searched(Protocol):
    """The half of `VectorIndex` that answers questions."""

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class Retriever:
    """Answers questions from one index. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        index: Searched,
        embedder: Embedder,
        *,
        tracer: Tracer | None = None,
        version: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take an open index and the embedder that its vectors were made with.

        Args:
            name: The index's name, on spans.
            index: Where to search; closed with the retriever.
            embedder: What makes a vector of the question.
            tracer: Makes the spans; the process's own when None.
            version: Names the index's contents; None when they may have changed without a trace.
        """
        self.name = name
        self._index = index
        self._embedder = embedder
        self._tracer = tracer
        self.version = version

    def retrieve(self, question: str, k: int) -> list[Hit]:
        """Return at most `k` passages, best first. Blocking and CPU-bound.

        Passages of one document that overlap are joined into one; of passages with equal text the best
        stays. Every hit's `chunk.text` still equals its document's `text[start:end]`.
        """
        attributes: dict[str, str | int] = {
            names.OPERATION: "retrieval",
            names.DATA_SOURCE_ID: self.name,
            names.RETRIEVAL_TOP_K: k,
            names.RETRIEVAL_MODE: "hybrid",
            names.DB_SYSTEM: "qdrant",
            names.DB_COLLECTION: self.name,
        }
        with span("retrieval", self.name, attributes, using=self._tracer) as current:
            vector = self._embedder.embed([question])[0]
            hits = distinct(self._index.search(vector, question, limit=k * _WIDER), k)
            current.set_attribute(names.RETRIEVAL_RETURNED, len(hits))
            if hits:
                current.set_attribute(names.RETRIEVAL_SCORE_MAX, hits[0].score)
            return hits

    def close(self) -> None:
        """Release the index."""
        self._index.close()


def distinct(hits: Sequence[Hit], k: int) -> list[Hit]:
    """Return the first `k` passages that are really different, joining those that overlap on the way."""
    kept: list[Hit] = []
    for hit in hits:
        at = next((at for at, other in enumerate(kept) if _touch(hit.chunk, other.chunk)), None)
        if at is not None:
            kept[at] = _joined(kept[at], hit)
        elif any(hit.chunk.text == other.chunk.text for other in kept):
            continue
        elif len(kept) == k:
            break
        else:
            kept.append(hit)
    return kept


def _touch(one: Chunk, other: Chunk) -> bool:
    same = (one.document_id, one.page) == (other.document_id, other.page)
    return same and one.start <= other.end and other.start <= one.end


def _joined(best: Hit, other: Hit) -> Hit:
    """Return one passage over both; it keeps the better one's id and score."""
    first, last = sorted((best.chunk, other.chunk), key=lambda chunk: (chunk.start, -chunk.end))
    text = first.text + last.text[max(0, first.end - last.start) :]
    end = max(first.end, last.end)
    chunk = replace(best.chunk, text=text, start=first.start, end=end, heading=first.heading)
    return Hit(chunk, best.score, max(best.similarity, other.similarity))


def open_index(
    settings: IndexSettings,
    *,
    home: Path,
    name: str,
    embedder: Embedder | None = None,
    tracer: Tracer | None = None,
) -> Retriever:
    """Open the index `name` for reading; a later `trilith ingest` is seen without opening it again.

    Raises:
        DataError: it was not built yet.
        IntegrityError: it is damaged.
        APIConnectionError: its Qdrant server does not answer.
    """
    embedder = embedder or MiniLmEmbedder()
    index: Searched
    folder = index_folder(home, name)
    if settings.qdrant_url is None:
        live = index = LiveIndex(
            folder,
            name,
            dimension=embedder.dimension,
            embedder=embedder.fingerprint,
        )
        return Retriever(name, index, embedder, tracer=tracer, version=live.version)
    index = server_index(settings, name, dimension=embedder.dimension)
    return Retriever(name, index, embedder, tracer=tracer, version=lambda: _book(folder / "ledger.db"))


def _book(ledger: Path) -> str | None:
    """Name a server's contents by its book, if that is on this machine: every change is entered there."""
    with suppress(FileNotFoundError):
        seen = ledger.stat()
        return f"{seen.st_mtime_ns}-{seen.st_size}"
    return None
