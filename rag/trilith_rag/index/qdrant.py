"""A Qdrant server, through its own client; the same vectors and the same BM25 as the engine in process."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from trilith.errors import APIConnectionError, DataError, SettingsError
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

MEMORY = ":memory:"

_BATCH = 256
_PAGE = 1000
_TIMEOUT_S = 60

R = TypeVar("R")


class QdrantIndex:
    """One collection with a dense and a BM25 vector for each chunk.

    `:memory:` runs qdrant-client's own Python engine: right, but 100 to 1200 times slower than `EdgeIndex`;
    it serves tests.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        dimension: int,
        mean_length: float | None = None,
        api_key: str | None = None,
        create: bool = True,
    ) -> None:
        """Open the collection `name`.

        Args:
            url: The server's address, or `:memory:`.
            name: Name of the index; characters that Qdrant refuses in a collection's name become `_`.
            dimension: Length of the dense vectors.
            mean_length: Mean BM25 length of the corpus's texts (tokens); see `sparse.count_tokens`.
            api_key: The server's credential.
            create: Make the collection when it is not there.

        Raises:
            APIConnectionError: the server does not answer.
            DataError: the collection is not there and `create` is False.
            SettingsError: a collection of that name has other vectors.
        """
        client: Any = need("qdrant_client", extra="rag")
        self._models: Any = client.models
        self._bm25 = Bm25(mean_length)
        self._dimension = dimension
        self._name = collection_name(name)
        self._url = url
        self._lock = threading.Lock()  # the in-memory engine is not safe to share (qdrant-client #1193)
        with warnings.catch_warnings():
            # Said of every key that goes over plain HTTP; whether that is wise is the operator's to decide.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            self._client = (
                client.QdrantClient(MEMORY)
                if url == MEMORY
                else client.QdrantClient(
                    url=url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False
                )
            )
        try:
            self._prepare(create)
        except BaseException:
            self._client.close()
            raise

    def _prepare(self, create: bool) -> None:
        if self._ask(lambda: self._client.collection_exists(self._name)):
            info = self._ask(lambda: self._client.get_collection(self._name))
            params = info.config.params
            dense = params.vectors.get(DENSE) if isinstance(params.vectors, dict) else None
            if dense is None or dense.size != self._dimension or BM25 not in (params.sparse_vectors or {}):
                raise SettingsError(
                    f"the collection {self._name!r} on {self._url} has other vectors; expected {DENSE!r} "
                    f"with {self._dimension} dimensions and {BM25!r}: choose another name for the index"
                )
            return
        if not create:
            raise DataError(f"there is no collection {self._name!r} on {self._url}")
        m = self._models
        self._ask(
            lambda: self._client.create_collection(
                self._name,
                vectors_config={DENSE: m.VectorParams(size=self._dimension, distance=m.Distance.COSINE)},
                sparse_vectors_config={BM25: m.SparseVectorParams(modifier=m.Modifier.IDF)},
            )
        )

    def upsert(self, chunks: Sequence[Chunk], vectors: Sequence[Sequence[float]]) -> None:
        """Add or replace chunks by id; returns when they can be found."""
        checked(chunks, vectors, self._dimension)
        m = self._models
        for at in range(0, len(chunks), _BATCH):
            points = []
            for chunk, vector in zip(chunks[at : at + _BATCH], vectors[at : at + _BATCH], strict=True):
                indices, values = self._bm25.document(search_text(chunk))
                both = {DENSE: list(vector), BM25: m.SparseVector(indices=indices, values=values)}
                points.append(m.PointStruct(id=chunk.id, vector=both, payload=payload(chunk)))
            self._ask(lambda ready=points: self._client.upsert(self._name, ready, wait=True))

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Remove chunks by id; unknown ids are ignored."""
        if chunk_ids:
            selector = self._models.PointIdsList(points=list(chunk_ids))
            self._ask(lambda: self._client.delete(self._name, selector, wait=True))

    def ids(self) -> dict[str, str]:
        """Return every stored chunk id with its document id, read from the server."""
        found: dict[str, str] = {}
        offset: Any = None
        while True:
            records, offset = self._ask(
                lambda at=offset: self._client.scroll(
                    self._name, limit=_PAGE, offset=at, with_payload=["document_id"]
                )
            )
            found.update((str(record.id), document_of(str(record.id), record.payload)) for record in records)
            if offset is None:
                return found

    def search(self, vector: Sequence[float], text: str, *, limit: int) -> list[Hit]:
        """Return at most `limit` hits, best first."""
        m, dense = self._models, list(vector)
        width = max(PREFETCH, limit)
        prefetches = [m.Prefetch(query=dense, using=DENSE, limit=width)]
        indices, values = self._bm25.query(text)
        if indices:
            words = m.SparseVector(indices=indices, values=values)
            prefetches.append(m.Prefetch(query=words, using=BM25, limit=width))
        found = self._ask(
            lambda: self._client.query_points(
                self._name,
                prefetch=prefetches,
                query=m.FusionQuery(fusion=m.Fusion.DBSF),
                limit=limit + SPARE,
                with_payload=True,
                with_vectors=[DENSE],
            )
        )
        return ranked([_hit(point, dense) for point in found.points], limit)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, request: Callable[..., R]) -> R:
        exceptions: Any = need("qdrant_client.http.exceptions", extra="rag")
        try:
            with self._lock:
                return request()
        except exceptions.ResponseHandlingException as error:
            raise APIConnectionError(f"Qdrant at {self._url} does not answer ({error})") from error
        except exceptions.UnexpectedResponse as error:
            raise APIConnectionError(f"Qdrant at {self._url} answered {error.status_code}") from error


def collection_name(name: str) -> str:
    """Return an index's name as Qdrant takes it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _hit(point: Any, dense: list[float]) -> Hit:
    return Hit(chunk_of(str(point.id), point.payload), point.score, cosine(point.vector[DENSE], dense))
