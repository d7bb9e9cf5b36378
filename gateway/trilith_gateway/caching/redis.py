"""Answers in Redis or Valkey, which all workers and machines share. While it is away, it is empty."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson

from trilith.extras import need
from trilith.types import Particulars, Usage
from trilith_gateway.caching.seam import Kept, Purge

_log = logging.getLogger(__name__)

_PREFIX = "trilith:1:"
"""All that is ours; the number changes with the form in which answers are kept."""
_ANSWER = _PREFIX + "answer:"
_PURGES = _PREFIX + "purges"
_BYTES = _PREFIX + "bytes"
_TIMEOUT_S = 0.25
"""A cache that takes longer is of no use (seconds)."""
_PAUSE_S = 1.0
"""How long it is left alone after a failure (seconds)."""
_LARGEST = 16
_MOST_WAITING = 256
"""Answers that wait to be written; more are not kept."""

_PUT = """
local entry, index, sizes, bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key, value, ttl_ms, expires, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local limit, team, prefix = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local function forget(name)
  local size = redis.call('HGET', sizes, name)
  redis.call('ZREM', index, name)
  if size then
    redis.call('HDEL', sizes, name)
    redis.call('HINCRBY', bytes, team, -size)
  end
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', now)) do forget(name) end
forget(key)
redis.call('SET', entry, value, 'PX', ttl_ms)
redis.call('ZADD', index, expires, key)
redis.call('HSET', sizes, key, #value)
local held = redis.call('HINCRBY', bytes, team, #value)
while held > limit do
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  redis.call('DEL', prefix .. oldest)
  forget(oldest)
  held = tonumber(redis.call('HGET', bytes, team))
end
"""
"""Keeps one answer and, if its team has too much now, drops those of the same team that expire soonest."""


class RedisCache:
    """The same as `MemoryCache`, in one server for all.

    A team's share is held here; the server's own `maxmemory` bounds the whole. Purges are kept beside the
    answers, so they hold for every machine, and for answers that are still on their way.
    """

    def __init__(
        self,
        url: str,
        most_bytes: int = 64 * 1024 * 1024,
        *,
        team_share: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the address and the bounds; nothing is connected yet.

        Raises:
            MissingExtra: the extra `redis` is not installed.
        """
        library: Any = need("redis.asyncio", extra="redis")
        self._errors: tuple[type[Exception], ...] = (need("redis", extra="redis").RedisError, OSError)
        self._client: Any = library.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=None
        )
        self._team_bytes = int(most_bytes * team_share)
        self._clock = clock
        self._put = self._client.register_script(_PUT)
        self._tasks: set[asyncio.Task[None]] = set()
        self._away_until = float("-inf")
        self._away = False

    async def get(self, key: bytes) -> Kept | None:
        """Return what is kept under a key."""
        if time.monotonic() < self._away_until:
            return None
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.get(_entry(key))
                pipeline.hgetall(_PURGES)
                value, purges = await pipeline.execute()
        except self._errors as error:
            self._fail(error)
            return None
        self._succeed()
        kept = None if value is None else _read(value)
        if kept is None or kept.begun_at + kept.ttl_s <= self._clock():
            return None
        return None if _void(purges, kept) else kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep one answer, in a moment."""
        if time.monotonic() < self._away_until or len(self._tasks) >= _MOST_WAITING:
            return
        if kept.size > self._team_bytes // _LARGEST:
            return
        task = asyncio.get_running_loop().create_task(self._store(key, kept))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _store(self, key: bytes, kept: Kept) -> None:
        now = self._clock()
        expires = kept.begun_at + kept.ttl_s
        if expires <= now:
            return
        try:
            keys = [_entry(key), *_team(kept.team), _BYTES]
            ttl_ms = max(1, int((expires - now) * 1000))
            times = (ttl_ms, expires, now)
            given = [key.hex(), _written(kept), *times, self._team_bytes, kept.team, _ANSWER]
            await self._put(keys=keys, args=given)
        except self._errors as error:
            self._fail(error)

    async def purge(self, purge: Purge) -> None:
        """Forget what falls under it, on all machines. One that Redis does not hear of fails.

        Raises:
            OSError: Redis is away, so what is kept there stays.
        """
        try:
            await self._client.hset(_PURGES, json.dumps([purge.model, purge.team]), repr(purge.at))
            async for entry in self._client.scan_iter(match=_ANSWER + "*", count=500):
                value = await self._client.get(entry)
                kept = None if value is None else _read(value)
                if kept is None or purge.voids(kept):
                    await self._client.delete(entry)
        except self._errors as error:
            raise OSError(
                f"Redis does not answer ({type(error).__name__}), nothing was purged there"
            ) from error

    async def drain(self) -> None:
        """Wait until all that was put is there."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def aclose(self) -> None:
        """Write what waits, and close the connections."""
        await self.drain()
        await self._client.aclose()

    def _fail(self, error: Exception) -> None:
        self._away_until = time.monotonic() + _PAUSE_S
        if not self._away:
            self._away = True
            _log.warning("Redis does not answer (%s): answers are not kept meanwhile", type(error).__name__)

    def _succeed(self) -> None:
        if self._away:
            self._away = False
            _log.warning("Redis answers again")


def _entry(key: bytes) -> str:
    return _ANSWER + key.hex()


def _team(team: str) -> tuple[str, str]:
    return f"{_PREFIX}index:{team}", f"{_PREFIX}sizes:{team}"


def _written(kept: Kept) -> bytes:
    facts = {name: value for name, value in asdict(kept).items() if name != "body"}
    return orjson.dumps(facts) + b"\n" + kept.body


def _read(value: bytes) -> Kept | None:
    """Return what was written; None when another release wrote it otherwise."""
    facts, _, body = value.partition(b"\n")
    try:
        found = orjson.loads(facts)
        return Kept(body, usage=_usage(found.pop("usage")), **found)
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError, ValueError):
        return None


def _usage(found: dict[str, Any] | None) -> Usage | None:
    if found is None:
        return None
    return Usage(**(found | {"particulars": Particulars(**found["particulars"])}))


def _void(purges: dict[bytes, bytes], kept: Kept) -> bool:
    return any(Purge(float(at), *json.loads(name)).voids(kept) for name, at in purges.items())
