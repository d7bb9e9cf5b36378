"""The front of the gateway: whatever brings a request in, here it is counted, traced, and answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue

from trilith.telemetry import fail, names
from trilith_gateway.exchange import Exchange
from trilith_gateway.metric import Metrics
from trilith_gateway.pipeline import Outlet, Pipeline

_log = logging.getLogger(__name__)


class Front:
    """Runs exchanges through the pipeline."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics, tracer: Tracer | None) -> None:
        """Take the collaborators; without a tracer, requests have no spans."""
        self._pipeline = pipeline
        self._metrics = metrics
        self._tracer = tracer

    async def run(self, exchange: Exchange, outlet: Outlet) -> None:
        """Answer one exchange; cancelling the task means that the caller has left."""
        self._metrics.open += 1
        try:
            if self._tracer is None:
                await self._pipeline.run(exchange, outlet)
            else:
                await self._traced(self._tracer, exchange, outlet)
        finally:
            self._metrics.open -= 1

    async def _traced(self, tracer: Tracer, exchange: Exchange, outlet: Outlet) -> None:
        with tracer.start_as_current_span(
            f"{exchange.api} -",
            context=extract(exchange.headers),
            kind=SpanKind.SERVER,
            start_time=exchange.started_ns,
            attributes=_first_attributes(exchange),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            exchange.span = span
            try:
                await self._pipeline.run(exchange, outlet)
            except (asyncio.CancelledError, Exception) as error:
                fail(span, error)
                raise


def _first_attributes(exchange: Exchange) -> Mapping[str, AttributeValue]:
    if exchange.operation.scores:
        return {names.OPERATION_TRILITH: "predict", names.MODEL_NAME: "-"}
    return {names.OPERATION: exchange.api.value, names.PROVIDER: "trilith", names.REQUEST_MODEL: "-"}
