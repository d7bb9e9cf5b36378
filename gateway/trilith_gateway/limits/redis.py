"""Limits that several machines keep together in Redis or Valkey: one atomic script, on the server's clock.

A place among the requests under way is a member of a sorted set that expires unless its process renews it,
so the places of a process that died come back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Literal

from trilith.errors import InternalServerError
from trilith.extras import need
from trilith_gateway.limits.seam import BURST_S, Allowance, Limiter, Maybe, What, crowded, pace, tightest
from trilith_gateway.terms import Rates

_log = logging.getLogger(__name__)

_LEASE_S = 15.0
"""How long a place is kept that nobody renews."""
_TIMEOUT_S = 0.5
_PAUSE_S = 1.0
"""For how long Redis is not asked again when it did not answer."""

_PRELUDE = """
local now = tonumber(ARGV[1])
if not now then
  local clock = redis.call('TIME')
  now = clock[1] - 1767225600 + clock[2] / 1e6  -- since 2026: small numbers keep their fractions exact
end
"""
_TAKE = (
    _PRELUDE
    + """
-- KEYS: for each number that is paid off in time, its key; then those of the sets of places.
-- ARGV: now, id, lease, how many paced keys; (rate, amount) for each of them; the most for each set.
local paced = tonumber(ARGV[4])
local dues, after, allowed = {}, {}, 1
for i = 1, paced do
  local rate, amount = tonumber(ARGV[3 + 2 * i]), tonumber(ARGV[4 + 2 * i])
  local due = tonumber(redis.call('GET', KEYS[i]) or now)
  dues[i] = string.format('%.17g', due)
  local arrival = math.min(math.max(due, now), now + 60)
  after[i] = arrival + amount * 60 / rate
  if after[i] - now - 60 > 1e-6 then allowed = 0 end
end
local places = {}
for i = paced + 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local open = redis.call('ZCARD', KEYS[i])
  places[i - paced] = open
  if open >= tonumber(ARGV[4 + paced + i]) then allowed = 0 end
end
if allowed == 1 then
  for i = 1, paced do
    local left = math.max(1, math.ceil((after[i] - now) * 1000))
    redis.call('SET', KEYS[i], string.format('%.17g', after[i]), 'PX', left)
  end
  for i = paced + 1, #KEYS do
    redis.call('ZADD', KEYS[i], now + tonumber(ARGV[3]), ARGV[2])
    redis.call('PEXPIRE', KEYS[i], math.ceil(tonumber(ARGV[3]) * 1000))
  end
end
return {allowed, string.format('%.17g', now), dues, places}
"""
)
_SETTLE = (
    _PRELUDE
    + """
-- ARGV: now, id, how many paced keys; the seconds to add for each of them.
local paced = tonumber(ARGV[3])
for i = 1, paced do
  local due = math.max(tonumber(redis.call('GET', KEYS[i]) or now), now) + tonumber(ARGV[3 + i])
  if due > now then
    redis.call('SET', KEYS[i], string.format('%.17g', due), 'PX', math.ceil((due - now) * 1000))
  else
    redis.call('DEL', KEYS[i])
  end
end
for i = paced + 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[2]) end
"""
)
_RENEW = (
    _PRELUDE
    + """
-- ARGV: now, lease; the place's id for each set.
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', now + tonumber(ARGV[2]), ARGV[2 + i])
  redis.call('PEXPIRE', KEYS[i], math.ceil(tonumber(ARGV[2]) * 1000))
end
"""
)

Paced = tuple[str, int, int, str, What]
"""Key, rate per minute, amount, account, what is counted."""


class RedisLimiter:
    """The numbers of `memory`, for all machines that use one Redis.

    When Redis is away, `open` keeps limits on this machine alone, by `local`; `closed` refuses requests of
    keys with limits.
    """

    def __init__(
        self, url: str, local: Limiter, away: Literal["open", "closed"], *, at: float | None = None
    ) -> None:
        """Connect at the first request.

        Args:
            url: `redis://...`.
            local: Keeps limits while Redis is away.
            away: What that means for callers.
            at: A time to use instead of the server's clock, for tests.
        """
        client, retry = need("redis.asyncio", extra="redis"), need("redis.asyncio.retry", extra="redis")
        backoff = need("redis.backoff", extra="redis")
        self._error: type[Exception] = need("redis.exceptions", extra="redis").RedisError
        self._client: Any = client.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=retry.Retry(backoff.NoBackoff(), 1),  # a connection that was idle for long may be dead
        )
        self._take, self._settle, self._renew = map(self._client.register_script, (_TAKE, _SETTLE, _RENEW))
        self._local = local
        self._away = away
        self.at = at
        self._silent_until = 0.0
        self._open: dict[str, Sequence[Rates]] = {}
        """Requests with a place in Redis."""
        self._here: set[str] = set()
        """Requests that were let in by `local`."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def request(self, rates: Sequence[Rates], now: float) -> Maybe:
        """Count one request at every account, or at none."""
        paced: list[Paced] = [
            (_key("requests", limit.account), limit.requests_per_minute, 1, limit.account, "requests")
            for limit in rates
            if limit.requests_per_minute is not None
        ]
        if not paced:
            return None
        try:
            return tightest(await self._taken(paced, (), ""))
        except (self._error, OSError, TimeoutError) as error:
            self._missed(error)
            return await _waited(self._local.request(rates, now))

    async def work(self, rates: Sequence[Rates], id: str, tokens: int, now: float) -> Maybe:
        """Take a place and `tokens` at every account, or nothing at any."""
        paced: list[Paced] = [
            (_key("tokens", limit.account), limit.tokens_per_minute, tokens, limit.account, "tokens")
            for limit in rates
            if limit.tokens_per_minute is not None
        ]
        crowds = [limit for limit in rates if limit.max_concurrency is not None]
        if not paced and not crowds:
            return None
        try:
            told = tightest(await self._taken(paced, crowds, id))
        except (self._error, OSError, TimeoutError) as error:
            self._missed(error)
            told = await _waited(self._local.work(rates, id, tokens, now))
            if told is None or told.allowed:
                self._here.add(id)
            return told
        if crowds and (told is None or told.allowed):
            self._open[id] = crowds
        return told

    def settle(self, rates: Sequence[Rates], id: str, taken: int, used: int, now: float) -> None:
        """Give the place back, and count `used` tokens instead of those `taken`; in the background."""
        self._open.pop(id, None)
        if id in self._here:
            self._here.discard(id)
            self._local.settle(rates, id, taken, used, now)
            return
        task = asyncio.get_running_loop().create_task(self._settled(rates, id, used - taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def renew(self) -> None:
        """Keep the places of requests under way."""
        places = [(limit.account, id) for id, crowds in list(self._open.items()) for limit in crowds]
        if not places:
            return
        keys = [_key("open", account) for account, _ in places]
        try:
            await self._renew(keys=keys, args=[self._now(), _LEASE_S, *(id for _, id in places)])
        except (self._error, OSError, TimeoutError) as error:
            _log.warning("Redis does not answer (%s); places of requests under way may be given away", error)

    async def aclose(self) -> None:
        """Finish what is on its way, then close the connections."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()
        await self._local.aclose()

    async def _taken(self, paced: Sequence[Paced], crowds: Sequence[Rates], id: str) -> list[Allowance]:
        if time.monotonic() < self._silent_until:
            raise TimeoutError("it did not answer a moment ago")
        arguments: list[Any] = [self._now(), id, _LEASE_S, len(paced)]
        for _, rate, amount, _, _ in paced:
            arguments += (rate, amount)
        arguments += (limit.max_concurrency for limit in crowds)
        keys = [key for key, *_ in paced] + [_key("open", limit.account) for limit in crowds]
        _, now, dues, places = await self._take(keys=keys, args=arguments)
        found = [
            pace(float(due), amount, rate, float(now), account, what)[1]
            for due, (_, rate, amount, account, what) in zip(dues, paced, strict=True)
        ]
        full = [
            crowded(limit)
            for limit, count in zip(crowds, places, strict=True)
            if count >= (limit.max_concurrency or 0)
        ]
        return found + full

    async def _settled(self, rates: Sequence[Rates], id: str, extra: int) -> None:
        paced = [limit for limit in rates if limit.tokens_per_minute is not None]
        keys = [_key("tokens", limit.account) for limit in paced]
        keys += [_key("open", limit.account) for limit in rates if limit.max_concurrency is not None]
        if not keys:
            return
        seconds = [extra * BURST_S / (limit.tokens_per_minute or 1) for limit in paced]
        try:
            await self._settle(keys=keys, args=[self._now(), id, len(paced), *seconds])
        except (self._error, OSError, TimeoutError) as error:
            _log.warning("Redis does not answer (%s); a request's tokens stay counted as taken", error)

    def _now(self) -> float | str:
        return "" if self.at is None else self.at

    def _missed(self, error: Exception) -> None:
        """Note that Redis is away, and go on or not as the settings say."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + _PAUSE_S
            _log.error("Redis does not answer, limits are kept %s: %s", _MEANING[self._away], error)
        if self._away == "closed":
            raise InternalServerError(
                "The limits of this key cannot be looked up at the moment. Try again.",
                status_code=503,
                code="limits_unavailable",
                type="server_error",
                retry_after_s=1,
            ) from error


_MEANING = {"open": "by each machine for itself", "closed": "by refusing keys that have any"}


def _key(kind: str, account: str) -> str:
    return f"trilith:limit:{kind}:{account}"


async def _waited(found: Maybe | Awaitable[Maybe]) -> Maybe:
    return await found if isinstance(found, Awaitable) else found
