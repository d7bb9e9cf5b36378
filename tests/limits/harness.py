"""A limiter and its clock, with the same gestures whether it waits or not."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Sequence

import redis
from support.redis_server import RedisServer

from trilith_gateway.limits.memory import RateLimiter
from trilith_gateway.limits.redis import RedisLimiter
from trilith_gateway.limits.seam import Allowance, Limiter, Maybe
from trilith_gateway.terms import Rates

Requests = tuple[Sequence[Rates], str, int]
"""One request under way: its limits, its id, the tokens that were taken for it."""
_IDS = itertools.count()
"""No two requests have one id, whichever machine answers them."""


class Bench:
    """Sends requests at times of the test's choosing."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self.now = 1_000.0

    @classmethod
    def on_redis(cls, server: RedisServer) -> Bench:
        client = redis.Redis.from_url(server.url)
        client.flushall()
        client.close()
        return cls(RedisLimiter(server.url, RateLimiter(), "open", at=1_000.0))

    def tick(self, seconds: float) -> None:
        self.now += seconds

    async def keep(self) -> None:
        """Do what a gateway does every second."""
        self._set_clock()
        await self.limiter.renew()

    async def request(self, *rates: Rates) -> Allowance:
        found = await self._asked(lambda: self.limiter.request(rates, self.now))
        assert found is not None
        return found

    async def work(self, *rates: Rates, tokens: int = 1) -> tuple[Maybe, Requests]:
        id = f"r{next(_IDS)}"
        return await self._asked(lambda: self.limiter.work(rates, id, tokens, self.now)), (rates, id, tokens)

    async def begun(self, *rates: Rates, tokens: int = 1) -> Requests | None:
        found, request = await self.work(*rates, tokens=tokens)
        return request if found is None or found.allowed else None

    async def end(self, request: Requests, used: int | None = None) -> None:
        rates, id, taken = request
        self._set_clock()
        self.limiter.settle(rates, id, taken, taken if used is None else used, self.now)
        if isinstance(self.limiter, RedisLimiter):
            await asyncio.gather(*self.limiter._tasks)

    async def _asked(self, ask: object) -> Maybe:
        self._set_clock()
        assert callable(ask)
        found: Maybe | Awaitable[Maybe] = ask()
        return await found if isinstance(found, Awaitable) else found

    def _set_clock(self) -> None:
        if isinstance(self.limiter, RedisLimiter):
            self.limiter.at = self.now
