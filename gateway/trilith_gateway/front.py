"""The front of the gateway: whatever brings a request in, here it is counted, traced, and answered."""

from __future__ import annotations

import asyncio

from trilith_gateway.exchange import Exchange
from trilith_gateway.metric import Metrics
from trilith_gateway.pipeline import Outlet, Pipeline
from trilith_gateway.tracelog import TraceLog


class Era:
    """The requests that began under the same settings."""

    __slots__ = ("_drained", "open", "over")

    def __init__(self) -> None:
        self.open = 0
        self.over = False
        self._drained: asyncio.Future[None] | None = None

    def drained(self) -> asyncio.Future[None]:
        """Return what is done when the last of them has ended; ask only when the era is over."""
        self._drained = asyncio.get_running_loop().create_future()
        if not self.open:
            self._drained.set_result(None)
        return self._drained

    def leave(self) -> None:
        """One request has ended."""
        self.open -= 1
        if self.over and not self.open and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


class Front:
    """Runs exchanges through the pipeline."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics, traces: TraceLog | None) -> None:
        """Take the collaborators; without a trace log, requests have no spans."""
        self._pipeline = pipeline
        self._metrics = metrics
        self._traces = traces
        self._era = Era()

    def turn(self) -> Era:
        """Begin a new era; returns the one that is over."""
        before, self._era = self._era, Era()
        before.over = True
        return before

    async def run(self, exchange: Exchange, outlet: Outlet) -> None:
        """Answer one exchange; cancelling the task means that the caller has left."""
        era = self._era
        era.open += 1
        self._metrics.open += 1
        try:
            if self._traces is None:
                await self._pipeline.run(exchange, outlet)
            else:
                await self._traced(self._traces, exchange, outlet)
        finally:
            self._metrics.open -= 1
            era.leave()

    async def _traced(self, traces: TraceLog, exchange: Exchange, outlet: Outlet) -> None:
        traces.begin(exchange)
        failure: BaseException | None = None
        try:
            await self._pipeline.run(exchange, outlet)
        except BaseException as error:
            failure = error
            raise
        finally:
            traces.end(exchange, failure)
