from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.watch import stored_faults

import trilith.telemetry.spans as spans
from trilith.telemetry import names, span, traced
from trilith_gateway.tracing import SqliteSpanExporter


@pytest.fixture
def finished(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", lambda _=None: provider.get_tracer(spans.SCOPE))
    return exporter


def only(finished: InMemorySpanExporter) -> ReadableSpan:
    (one,) = finished.get_finished_spans()
    return one


def test_a_plain_function_runs_in_a_span_of_its_name(finished: InMemorySpanExporter) -> None:
    @traced(name="summarise")
    def function(text: str) -> str:
        return text.upper()

    assert function("a") == "A"
    assert only(finished).name == "app summarise"


async def test_a_coroutine_runs_in_a_span(finished: InMemorySpanExporter) -> None:
    @traced
    async def answer() -> int:
        return 42

    assert await answer() == 42
    assert only(finished).name.endswith("answer")


def test_arguments_and_results_never_reach_the_span(finished: InMemorySpanExporter) -> None:
    @traced
    def function(secret: str) -> str:
        raise ValueError(secret)

    with pytest.raises(ValueError, match="canary"):
        function("canary")
    assert "canary" not in only(finished).to_json()
    assert (only(finished).attributes or {})[names.ERROR_TYPE] == "ValueError"


def test_a_generator_s_span_lasts_until_it_is_closed(finished: InMemorySpanExporter) -> None:
    @traced
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    running = numbers()
    assert next(running) == 1
    assert not finished.get_finished_spans()
    running.close()  # type: ignore[attr-defined]
    assert only(finished).name.endswith("numbers")


def test_a_generator_s_span_is_not_current_in_its_consumer(finished: InMemorySpanExporter) -> None:
    inside: list[bool] = []

    @traced
    def numbers() -> Iterator[int]:
        inside.append(trace.get_current_span().get_span_context().is_valid)
        yield 1

    for _ in numbers():
        inside.append(trace.get_current_span().get_span_context().is_valid)
    assert inside == [True, False]


async def test_a_cancelled_async_generator_closes_its_span(finished: InMemorySpanExporter) -> None:
    started = asyncio.Event()

    @traced
    async def forever() -> AsyncIterator[int]:
        started.set()
        await asyncio.sleep(60)
        yield 1

    async def consume() -> None:
        async for _ in forever():
            pass

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (only(finished).attributes or {})[names.ERROR_TYPE] == "CancelledError"


async def test_an_async_generator_that_is_closed_early_has_not_failed(finished: InMemorySpanExporter) -> None:
    @traced
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    running = numbers()
    assert await anext(running) == 1
    assert not finished.get_finished_spans()
    await running.aclose()
    assert names.ERROR_TYPE not in (only(finished).attributes or {})


async def test_a_consumer_cancelled_between_two_items_leaves_no_span_open(
    finished: InMemorySpanExporter,
) -> None:
    @traced
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    taken = asyncio.Event()

    async def consume() -> None:
        async with aclosing(numbers()) as running:
            async for _ in running:
                taken.set()
                await asyncio.sleep(60)

    task = asyncio.create_task(consume())
    await taken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert only(finished).name.endswith("numbers")


def test_a_generator_s_own_clean_up_runs_in_its_span_and_its_failure_is_seen(
    finished: InMemorySpanExporter,
) -> None:
    inside: list[bool] = []

    @traced
    def numbers() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            inside.append(trace.get_current_span().get_span_context().is_valid)
            raise OSError("disk")

    running = numbers()
    next(running)
    with pytest.raises(OSError, match="disk"):
        running.close()
    assert inside == [True]
    assert (only(finished).attributes or {})[names.ERROR_TYPE] == "OSError"


async def test_an_async_generator_s_own_clean_up_runs_in_its_span_and_its_failure_is_seen(
    finished: InMemorySpanExporter,
) -> None:
    inside: list[bool] = []

    @traced
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            inside.append(trace.get_current_span().get_span_context().is_valid)
            raise OSError("disk")

    running = numbers()
    await anext(running)
    with pytest.raises(OSError, match="disk"):
        await running.aclose()
    assert inside == [True]
    assert (only(finished).attributes or {})[names.ERROR_TYPE] == "OSError"


def test_what_the_consumer_throws_reaches_the_generator(finished: InMemorySpanExporter) -> None:
    @traced
    def numbers() -> Iterator[str]:
        try:
            yield "first"
        except KeyError:
            yield "caught"

    running = numbers()
    next(running)
    assert running.throw(KeyError()) == "caught"  # type: ignore[attr-defined]
    running.close()  # type: ignore[attr-defined]


def test_spans_nest(finished: InMemorySpanExporter) -> None:
    with span("guardrail", "pii", {}), span("attempt", "m", {}):
        pass
    inner, outer = finished.get_finished_spans()
    assert inner.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id


def test_an_unknown_operation_attribute_or_a_missing_one_is_a_fault() -> None:
    assert names.faults("chat m", {}) == [
        f"'chat m': {name} is missing"
        for name in sorted((names.OPERATION, names.PROVIDER, names.REQUEST_MODEL))
    ]
    assert names.faults("app f", {names.CODE_FUNCTION: "f", "gen_ai.other": 1}) == [
        "'app f': gen_ai.other is not allowed here"
    ]
    assert "is not among the operations" in names.faults("sing song", {})[0]


def test_the_watch_over_the_run_reads_what_platforms_stored(tmp_path: Path) -> None:
    exporter = SqliteSpanExporter(tmp_path / "spans.db")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with spans.span("app", "f", {names.CODE_FUNCTION: "f"}, using=spans.tracer(provider)):
        pass
    assert stored_faults(tmp_path / "spans.db") == []
    with spans.span("app", "f", {"gen_ai.secret": 1}, using=spans.tracer(provider)):
        pass
    assert stored_faults(tmp_path / "spans.db") == [
        "'app f': code.function.name is missing",
        "'app f': gen_ai.secret is not allowed here",
    ]
