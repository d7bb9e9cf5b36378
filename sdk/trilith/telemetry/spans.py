"""Making spans: `span` for Trilith's own steps, `traced` for an app's functions.

Uses the OpenTelemetry API only, so nothing is recorded until a process installs an SDK.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, overload

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from trilith.telemetry import names

P = ParamSpec("P")
R = TypeVar("R")

SCOPE = "trilith"
"""Instrumentation scope of every span that Trilith makes."""


def tracer(provider: trace.TracerProvider | None = None) -> Tracer:
    """Return Trilith's tracer, from `provider` or from the process's global one."""
    return trace.get_tracer(SCOPE, tracer_provider=provider)


def fail(span: Span, error: BaseException) -> None:
    """Mark a span as failed by the error's class only: a message may hold a caller's text."""
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))


@contextmanager
def span(
    operation: str,
    subject: str,
    attributes: Mapping[str, AttributeValue],
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    using: Tracer | None = None,
) -> Iterator[Span]:
    """Open the span `"{operation} {subject}"` around a block, as a child of the current one.

    Args:
        operation: A key of `names.SHAPES`; a test holds every span to its shape.
        subject: Model, data source, or guardrail name; never a caller's text.
        attributes: Set at creation, where samplers can see them.
        kind: INTERNAL within the process, CLIENT towards a neighbour, SERVER for an arriving call.
        using: Tracer to use; the process's own when None.
    """
    made_by = using or tracer()
    with made_by.start_as_current_span(
        f"{operation} {subject}",
        kind=kind,
        attributes=dict(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException as error:  # a cancelled task must close its span as well
            fail(current, error)
            raise


@overload
def traced(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def traced(*, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def traced(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Record a span `app {name}` for every run of a function; arguments and results stay out.

    Works on plain functions, coroutine functions, generators and async generators. A generator's span
    lasts from its first step until it is exhausted, closed, or cancelled. Calls that the function makes
    through Trilith's clients become children of the span, across processes too.

    Args:
        function: The function, when used without parentheses.
        name: Name after `app `; the function's qualified name when None.
    """
    if function is None:
        return functools.partial(_wrap, name=name)
    return _wrap(function, name=name)


def _wrap(function: Callable[..., Any], *, name: str | None) -> Callable[..., Any]:
    qualified = f"{function.__module__}.{function.__qualname__}"
    subject = name or function.__qualname__
    attributes = {names.CODE_FUNCTION: qualified}

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            # The span is current only while the generator itself runs, not in the consumer's code.
            current = tracer().start_span(f"app {subject}", attributes=attributes)
            inner = function(*args, **kwargs)
            try:
                step: Callable[[], Any] = inner.__anext__
                while True:
                    with trace.use_span(current, record_exception=False, set_status_on_exception=False):
                        try:
                            item = await step()
                        except StopAsyncIteration:
                            return
                    try:
                        sent = yield item
                        step = functools.partial(inner.asend, sent)
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # thrown in by the consumer: the generator decides
                        step = functools.partial(inner.athrow, error)
            except GeneratorExit:
                with trace.use_span(current, record_exception=False, set_status_on_exception=False):
                    try:
                        await inner.aclose()
                    except BaseException as error:  # its own clean-up failed, or was cancelled
                        fail(current, error)
                        raise
                raise
            except BaseException as error:
                fail(current, error)
                raise
            finally:
                current.end()

        return async_generator

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            current = tracer().start_span(f"app {subject}", attributes=attributes)
            inner = function(*args, **kwargs)
            try:
                step: Callable[[], Any] = inner.__next__
                while True:
                    with trace.use_span(current, record_exception=False, set_status_on_exception=False):
                        try:
                            item = step()
                        except StopIteration as stop:
                            return stop.value
                    try:
                        sent = yield item
                        step = functools.partial(inner.send, sent)
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # thrown in by the consumer: the generator decides
                        step = functools.partial(inner.throw, error)
            except GeneratorExit:
                with trace.use_span(current, record_exception=False, set_status_on_exception=False):
                    try:
                        inner.close()
                    except BaseException as error:  # its own clean-up failed
                        fail(current, error)
                        raise
                raise
            except BaseException as error:
                fail(current, error)
                raise
            finally:
                current.end()

        return generator

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with span("app", subject, attributes):
                return await function(*args, **kwargs)

        return coroutine

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with span("app", subject, attributes):
            return function(*args, **kwargs)

    return plain
