"""Which requests are under way, and under which settings they began."""

from __future__ import annotations

import asyncio

from trilith_gateway.metric import Metrics


class Era:
    """The requests that began under the same settings."""

    __slots__ = ("_drained", "_metrics", "open", "over")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.open = 0
        self.over = False
        self._drained: asyncio.Future[None] | None = None

    def drained(self) -> asyncio.Future[None]:
        """Return what is done when the last of them has ended; ask only when the era is over."""
        self._drained = asyncio.get_running_loop().create_future()
        if not self.open:
            self._drained.set_result(None)
        return self._drained

    def enter(self) -> None:
        """One request has begun."""
        self.open += 1
        self._metrics.open += 1

    def leave(self) -> None:
        """It has ended."""
        self._metrics.open -= 1
        self.open -= 1
        if self.over and not self.open and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
