"""What all tests share: an empty TRILITH_ environment, and a watch over every span that the run makes.

Spans of this process are seen as they end; those of platforms that tests started, in processes of their own
or in this one, are read at the end of the run from the databases that they left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.watch import ShapeWatch, stored_faults


@pytest.fixture(scope="session", autouse=True)
def span_watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShapeWatch]:
    """The process's tracing for the whole run; fails the run when a span broke its shape."""
    watch = ShapeWatch()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(watch)
    trace.set_tracer_provider(provider)
    yield watch
    provider.shutdown()
    for path in tmp_path_factory.getbasetemp().rglob("traces.db"):
        watch.faults += stored_faults(path)
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
