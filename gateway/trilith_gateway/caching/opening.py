"""Opens the caches that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable

from trilith.seams import Embedder, NearestIndex
from trilith.settings.cache import SemanticCacheSettings
from trilith.settings.schema import Settings
from trilith_gateway.caching.memory import MemoryCache
from trilith_gateway.caching.redis import RedisCache
from trilith_gateway.caching.seam import Cache
from trilith_gateway.caching.semantic import SemanticCache

_COLLECTION = "trilith-answers"


def open_cache(settings: Settings) -> Cache:
    """Return the cache of answers: Redis where the settings name one, else this process's memory.

    Raises:
        MissingExtra: Redis is named and the extra `redis` is not installed.
    """
    gateway, url = settings.gateway, settings.store.redis_url
    if url is None:
        return MemoryCache(gateway.cache_bytes, team_share=gateway.cache_team_share)
    return RedisCache(url.get_secret_value(), gateway.cache_bytes, team_share=gateway.cache_team_share)


def open_semantic(
    settings: Settings, cache: Cache, embedder: Callable[[], Embedder], *, worker: str
) -> SemanticCache:
    """Return the cache of what questions mean; nothing is loaded before a model wants it."""
    folder = settings.home / "run" / "nearest" / worker

    def open_index(chosen: SemanticCacheSettings, dimension: int) -> NearestIndex:
        from trilith_rag.index.nearest import EdgeNearest, ServerNearest

        if chosen.qdrant_url is None:
            return EdgeNearest(folder, dimension=dimension)
        key = chosen.qdrant_api_key
        return ServerNearest(
            chosen.qdrant_url,
            _COLLECTION,
            dimension=dimension,
            api_key=key.get_secret_value() if key else None,
        )

    return SemanticCache(cache, embedder, open_index)
