"""The front of the gateway: whatever brings a request in, here it is counted, traced, and answered."""

from __future__ import annotations

from trilith_gateway.direct import Direct, Way
from trilith_gateway.era import Era
from trilith_gateway.exchange import Exchange
from trilith_gateway.metric import Metrics
from trilith_gateway.pipeline import Outlet, Pipeline
from trilith_gateway.tracelog import TraceLog


class Front:
    """Runs exchanges through the pipeline."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics, traces: TraceLog | None) -> None:
        """Take the collaborators; without a trace log, requests have no spans."""
        self._pipeline = pipeline
        self._metrics = metrics
        self._traces = traces
        self._era = Era(metrics)

    def turn(self) -> Era:
        """Begin a new era; returns the one that is over."""
        before, self._era = self._era, Era(self._metrics)
        before.over = True
        return before

    async def run(self, exchange: Exchange, outlet: Outlet) -> None:
        """Answer one exchange; cancelling the task means that the caller has left."""
        era = self._era
        era.enter()
        try:
            if self._traces is None:
                await self._pipeline.run(exchange, outlet)
            else:
                await self._traced(self._traces, exchange, outlet)
        finally:
            era.leave()

    def direct(self, exchange: Exchange, way: Way) -> Direct:
        """Return what answers an exchange, whose body is there, without a task as far as that goes."""
        return Direct(self._pipeline, self._era, self._traces, exchange, way)

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
