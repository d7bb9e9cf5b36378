"""How fast a run calls: requests per minute, and calls under way, fewer as soon as the server asks for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """Additive increase, multiplicative decrease of the calls under way (Chiu and Jain, 1989)."""

    def __init__(self, concurrency: int, requests_per_minute: float | None = None) -> None:
        """Take the most calls under way, and the most calls that begin in a minute (evenly spread)."""
        self._most = concurrency
        self._limit = float(concurrency)
        self._gap_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next = 0.0
        self._cut = 0.0
        self._under_way = 0
        self._freed = asyncio.Event()

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
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._gap_s if self._gap_s else self._next
            if begin > now:
                await asyncio.sleep(begin - now)
            yield
        finally:
            self._under_way -= 1
            self._freed.set()

    def well(self) -> None:
        """Hear of an answered call."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def slower(self, began: float, wait_s: float) -> None:
        """Hear of a call, begun then (monotonic seconds), that was refused as one too many.

        Calls that began before the last cut say nothing new. No call begins before `wait_s` is over.
        """
        now = time.monotonic()
        if began >= self._cut:
            self._limit = max(1.0, self._limit / 2)
            self._cut = now
        self._next = max(self._next, now + wait_s)
