"""How fast a run calls: requests and tokens per minute, and calls under way, fewer if a server is full."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_SLOW = 2.0
"""Calls whose median is so many times that of the fastest window stand in a queue."""
_WINDOW = 20
"""Calls in a window: single answers are long or short, and say nothing."""


class Pace:
    """Additive increase, multiplicative decrease of the calls under way (Chiu and Jain, 1989)."""

    def __init__(
        self,
        concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the most calls under way, and per minute the most calls (evenly spread) and the most tokens.

        A call's tokens are known after it; until then it is taken to need the mean of the calls before, and
        the difference is made good by those that follow. So the first calls, all that begin before one has
        ended, are on trust: the limit is kept over minutes, not within a burst at the start.
        """
        self._most = concurrency
        self._limit = float(concurrency)
        self._gap_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock = clock
        self._next = 0.0
        self._cut = 0.0
        self._under_way = 0
        self._freed = asyncio.Event()
        self._tokens = self._told = 0
        self._usual_s = 0.0
        self._times: list[float] = []

    @property
    def limit(self) -> int:
        """Calls that may be under way now."""
        return int(self._limit)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a place and for the call's time, and hold the place while the block runs."""
        while self._under_way >= self.limit:
            self._freed.clear()
            await self._freed.wait()
        self._under_way += 1
        try:
            now = self._clock()
            begin = max(now, self._next)
            self._next = begin + max(self._gap_s, self._expected * self._token_s)
            if begin > now:
                await asyncio.sleep(begin - now)
            yield
        finally:
            self._under_way -= 1
            self._freed.set()

    @property
    def _expected(self) -> float:
        return self._tokens / self._told if self._told else 0.0

    def well(self, seconds: float | None = None, tokens: int | None = None) -> None:
        """Hear of an answered call: how long it took, and how many tokens it read and wrote."""
        if tokens is not None:
            self._next += (tokens - self._expected) * self._token_s
            self._tokens, self._told = self._tokens + tokens, self._told + 1
        if seconds is not None and self._queued(seconds):
            self.slower(self._clock(), 0.0)
            return
        self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def _queued(self, seconds: float) -> bool:
        """Whether the calls of a window that ends here took as long as if they had waited."""
        self._times.append(seconds)
        if len(self._times) < max(_WINDOW, self._most):
            return False
        typical = statistics.median(self._times)
        self._times.clear()
        # A little forgetful, so that a model which has become slower for good is not held back for ever.
        self._usual_s = min(typical, 1.05 * self._usual_s) if self._usual_s else typical
        return typical > _SLOW * self._usual_s

    def slower(self, began: float, wait_s: float) -> None:
        """Hear of a call, begun then (monotonic seconds), that was refused as one too many.

        Calls that began before the last cut say nothing new. No call begins before `wait_s` is over.
        """
        now = self._clock()
        if began >= self._cut:
            self._limit = max(1.0, self._limit / 2)
            self._cut = now
        self._next = max(self._next, now + wait_s)
