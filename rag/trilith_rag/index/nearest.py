"""Vectors by scope, without any text: in the Rust Qdrant engine of this process, or on a Qdrant server."""

from __future__ import annotations

import shutil
import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trilith.extras import need

_MOST = 10_000
"""Vectors that one process holds; beyond that the oldest goes. Up to here every search is exact."""
_KEPT_S = 86_400.0
"""How long a server keeps a vector that nobody drops (seconds)."""
_SWEEP_S = 300.0
_TIMEOUT_S = 2


class EdgeNearest:
    """A shard in a folder that is emptied when it is opened: what it points to lives no longer either."""

    def __init__(self, folder: Path, *, dimension: int, most: int = _MOST) -> None:
        """Make an empty shard in `folder`; one process has a folder."""
        self._engine: Any = need("qdrant_edge", extra="rag")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        e = self._engine
        vectors = e.EdgeVectorParams(size=dimension, distance=e.Distance.Cosine)
        config = e.EdgeConfig(vectors={"": vectors}, wal_enabled=False)
        self._folder = folder
        self._shard = e.EdgeShard.create(str(folder), config)
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def add(self, key: str, scope: str, vector: Sequence[float]) -> None:
        """Add or replace the vector of `key`."""
        e = self._engine
        point = e.Point(_id(key), list(vector), {"key": key, "scope": scope})
        self._shard.update(e.UpdateOperation.upsert_points([point]))
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self.drop(next(iter(self._keys)))

    def find(self, scope: str, vector: Sequence[float], *, limit: int) -> list[tuple[str, float]]:
        """Return keys and cosine similarities, nearest first."""
        if not self._keys:
            return []
        e = self._engine
        same = e.FieldCondition(key="scope", match=e.MatchValue(scope))
        request = e.QueryRequest(
            limit=limit, query=e.Query.Nearest(list(vector)), filter=e.Filter(must=[same]), with_payload=True
        )
        return [(point.payload["key"], float(point.score)) for point in self._shard.query(request)]

    def drop(self, key: str) -> None:
        """Remove a vector."""
        if key in self._keys:
            del self._keys[key]
            self._shard.update(self._engine.UpdateOperation.delete_points([_id(key)]))

    def close(self) -> None:
        """Remove the folder."""
        self._shard.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class ServerNearest:
    """A collection on a Qdrant server, which all workers and machines share."""

    def __init__(self, url: str, name: str, *, dimension: int, api_key: str | None = None) -> None:
        """Open the collection `name`, or make it; `:memory:` is qdrant-client's own engine, for tests."""
        client: Any = need("qdrant_client", extra="rag")
        self._models: Any = client.models
        self._client: Any = (
            client.QdrantClient(":memory:")
            if url == ":memory:"
            else client.QdrantClient(url=url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False)
        )
        self._name = name
        self._swept = time.time()
        m = self._models
        if not self._client.collection_exists(name):
            params = m.VectorParams(size=dimension, distance=m.Distance.COSINE)
            self._client.create_collection(name, vectors_config=params)
            if url != ":memory:":
                self._client.create_payload_index(name, "scope", m.PayloadSchemaType.KEYWORD)

    def add(self, key: str, scope: str, vector: Sequence[float]) -> None:
        """Add or replace the vector of `key`; now and then, those that are a day old are removed."""
        m, now = self._models, time.time()
        point = m.PointStruct(
            id=_id(key), vector=list(vector), payload={"key": key, "scope": scope, "at": now}
        )
        self._client.upsert(self._name, [point])
        if now - self._swept > _SWEEP_S:
            self._swept = now
            old = m.FieldCondition(key="at", range=m.Range(lt=now - _KEPT_S))
            self._client.delete(self._name, m.FilterSelector(filter=m.Filter(must=[old])))

    def find(self, scope: str, vector: Sequence[float], *, limit: int) -> list[tuple[str, float]]:
        """Return keys and cosine similarities, nearest first."""
        m = self._models
        same = m.FieldCondition(key="scope", match=m.MatchValue(value=scope))
        found = self._client.query_points(
            self._name, query=list(vector), query_filter=m.Filter(must=[same]), limit=limit, with_payload=True
        )
        return [(point.payload["key"], float(point.score)) for point in found.points]

    def drop(self, key: str) -> None:
        """Remove a vector."""
        self._client.delete(self._name, self._models.PointIdsList(points=[_id(key)]))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _id(key: str) -> str:
    """Return a point's id for a key: Qdrant takes numbers and UUIDs only."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, key))
