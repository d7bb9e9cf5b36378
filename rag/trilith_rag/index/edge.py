"""The Rust Qdrant engine in this process: one shard in one folder."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trilith.errors import IntegrityError
from trilith.extras import need
from trilith.types import Chunk, Hit
from trilith_rag.chunk import search_text
from trilith_rag.index.payload import (
    BM25,
    DENSE,
    PREFETCH,
    SPARE,
    checked,
    chunk_of,
    cosine,
    document_of,
    payload,
    ranked,
)
from trilith_rag.sparse import Bm25

_BATCH = 256
_PAGE = 1000


class EdgeIndex:
    """Hybrid search over a folder: dense and BM25, fused by distribution (DBSF).

    Written without a write-ahead log: a folder is built, closed, and only then published (`Generations`),
    so a log would guard nothing, and its lock would keep readers of other processes out. Results come from
    an exact scan below the engine's threshold for building a graph (about 20,000 passages).
    """

    def __init__(
        self, folder: Path, *, dimension: int, mean_length: float | None = None, create: bool = True
    ) -> None:
        """Open the shard in `folder`, or create it.

        Args:
            folder: The shard's own folder.
            dimension: Length of the dense vectors.
            mean_length: Mean BM25 length of the corpus's texts (tokens); see `sparse.count_tokens`.

            create: Make the shard when the folder is empty or not there.

        Raises:
            IntegrityError: there is no shard that can be opened.
        """
        self._engine: Any = need("qdrant_edge", extra="rag")
        self._bm25 = Bm25(mean_length)
        self._dimension = dimension
        self._lock = threading.Lock()  # the engine's thread safety is not documented
        if not create or (folder.is_dir() and any(folder.iterdir())):
            try:
                self._shard = self._engine.EdgeShard.load(str(folder))
            except Exception as error:  # the engine raises nothing narrower
                raise IntegrityError(f"the index in {str(folder)!r} cannot be opened ({error})") from error
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._shard = self._engine.EdgeShard.create(str(folder), self._config())

    def _config(self) -> Any:
        e = self._engine
        return e.EdgeConfig(
            vectors={DENSE: e.EdgeVectorParams(size=self._dimension, distance=e.Distance.Cosine)},
            sparse_vectors={BM25: e.EdgeSparseVectorParams(modifier=e.Modifier.Idf)},
            wal_enabled=False,
        )

    def upsert(self, chunks: Sequence[Chunk], vectors: Sequence[Sequence[float]]) -> None:
        """Add or replace chunks by id."""
        checked(chunks, vectors, self._dimension)
        e = self._engine
        for at in range(0, len(chunks), _BATCH):
            points = []
            for chunk, vector in zip(chunks[at : at + _BATCH], vectors[at : at + _BATCH], strict=True):
                sparse = e.SparseVector(*self._bm25.document(search_text(chunk)))
                points.append(e.Point(chunk.id, {DENSE: list(vector), BM25: sparse}, payload(chunk)))
            with self._lock:
                self._shard.update(e.UpdateOperation.upsert_points(points))

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Remove chunks by id; unknown ids are ignored."""
        if chunk_ids:
            with self._lock:
                self._shard.update(self._engine.UpdateOperation.delete_points(list(chunk_ids)))

    def ids(self) -> dict[str, str]:
        """Return every stored chunk id with its document id, read from the shard."""
        found: dict[str, str] = {}
        offset: object = None
        while True:
            request = self._engine.ScrollRequest(offset=offset, limit=_PAGE, with_payload=["document_id"])
            with self._lock:
                records, offset = self._shard.scroll(request)
            found.update((str(record.id), document_of(str(record.id), record.payload)) for record in records)
            if offset is None:
                return found

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first."""
        e, dense = self._engine, list(vector)
        width = max(PREFETCH, limit)
        prefetches = [e.Prefetch(limit=width, query=e.Query.Nearest(dense, using=DENSE))]
        indices, weights = self._bm25.query(text)
        if indices:
            words = e.Query.Nearest(e.SparseVector(indices, weights), using=BM25)
            prefetches.append(e.Prefetch(limit=width, query=words))
        request = e.QueryRequest(
            limit=limit + SPARE,
            query=e.Fusion.Dbsf(),
            prefetches=prefetches,
            with_payload=True,
            with_vector=[DENSE],
        )
        with self._lock:
            points = self._shard.query(request)
        return ranked([_hit(point, dense) for point in points], limit)

    def close(self) -> None:
        """Write everything to disk and release the files."""
        with self._lock:
            self._shard.flush()
            self._shard.close()


def _hit(point: Any, dense: list[float]) -> Hit:
    return Hit(chunk_of(str(point.id), point.payload), point.score, cosine(point.vector[DENSE], dense))
