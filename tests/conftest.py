"""What all tests share: an empty TRILITH_ environment, and a watch over every span that the run makes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from trilith.telemetry import SCOPE, names


class ShapeWatch(SpanProcessor):
    """Holds every finished span of Trilith's to its shape."""

    def __init__(self) -> None:
        self.seen = 0
        self.faults: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == SCOPE:
            self.seen += 1
            self.faults += names.faults(span.name, dict(span.attributes or {}))


@pytest.fixture(scope="session", autouse=True)
def span_watch() -> Iterator[ShapeWatch]:
    """The process's tracing for the whole run; fails the run when a span broke its shape."""
    watch = ShapeWatch()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(watch)
    trace.set_tracer_provider(provider)
    yield watch
    provider.shutdown()
    assert watch.faults == []


@pytest.fixture
def spans(span_watch: ShapeWatch) -> Iterator[InMemorySpanExporter]:
    """The spans that one test makes."""
    exporter = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TRILITH_") and name != "TRILITH_DATA_HOME":
            monkeypatch.delenv(name)
