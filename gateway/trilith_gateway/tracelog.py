"""The spans of a request, written down after it: on its way it only notes numbers.

An SDK span costs 50 microseconds and more, as much as all else that the gateway does for a request. So
a request notes identifiers and times; a thread makes the spans and hands them to the process's exporters.
Spans that other parts open meanwhile (retrieval, guardrails) are ordinary ones, and find their parent in the
current context as always.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
)
from opentelemetry.util.types import AttributeValue

from trilith.telemetry import SCOPE, names
from trilith_gateway import decision
from trilith_gateway.api import Api
from trilith_gateway.content import Content
from trilith_gateway.exchange import Exchange
from trilith_gateway.stages.record import status
from trilith_gateway.trace import Attempt, RequestTrace

_log = logging.getLogger(__name__)

_DELAY_S = 0.1
_MOST_WAITING = 20_000
"""Requests whose spans are not made yet; beyond that spans are dropped, and counted."""


def _spans(noted: RequestTrace, exchange: Exchange, provider: TracerProvider) -> list[ReadableSpan]:
    """Make the spans: attempts first, then the request's own."""
    own = noted.context(noted.span_id)
    parent = noted.context(noted.parent_id, remote=True) if noted.parent_id is not None else None
    made = [
        _span(
            provider,
            f"attempt {exchange.model}",
            noted.context(attempt.span_id),
            own,
            _attempt_attributes(exchange, attempt),
            SpanKind.CLIENT,
            (attempt.started_ns, attempt.ended_ns or noted.ended_ns),  # others may still listen
            attempt.error,
        )
        for attempt in noted.attempts
    ]
    name = f"{_word(exchange)} {exchange.model}"
    times = (exchange.started_ns, noted.ended_ns)
    attributes = _attributes(exchange)
    made.append(_span(provider, name, own, parent, attributes, SpanKind.SERVER, times, noted.error))
    return made


def _word(exchange: Exchange) -> str:
    """Return the operation's name in the GenAI conventions; all that converse are chats."""
    chats = exchange.api is Api.MESSAGE or exchange.api is Api.RESPONSE
    return "chat" if chats else exchange.api.value


def _span(
    provider: TracerProvider,
    name: str,
    context: SpanContext,
    parent: SpanContext | None,
    attributes: dict[str, AttributeValue],
    kind: SpanKind,
    times: tuple[int, int],
    error: str | None,
) -> ReadableSpan:
    if error is not None:
        attributes[names.ERROR_TYPE] = error
    return ReadableSpan(
        name,
        context,
        parent,
        provider.resource,
        attributes,
        kind=kind,
        status=_UNSET if error is None else Status(StatusCode.ERROR, error),
        start_time=times[0],
        end_time=max(times),
        instrumentation_scope=_SCOPE,
    )


_SCOPE = InstrumentationScope(SCOPE)
_UNSET = Status(StatusCode.UNSET)


def _attempt_attributes(exchange: Exchange, attempt: Attempt) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        names.REQUEST_MODEL: exchange.model,
        names.ATTEMPT_INDEX: attempt.index,
    }
    if attempt.status is not None:
        found[names.HTTP_STATUS] = attempt.status
    return found


def _attributes(exchange: Exchange) -> dict[str, AttributeValue]:
    scores = exchange.operation.scores
    found: dict[str, AttributeValue] = {
        names.MODEL_NAME if scores else names.REQUEST_MODEL: exchange.model,
        names.REQUEST_ID: exchange.request_id,
        names.HTTP_STATUS: status(exchange),
    }
    if scores:
        found[names.OPERATION_TRILITH] = "predict"
    else:
        found |= {names.OPERATION: _word(exchange), names.PROVIDER: "trilith"}
    if exchange.key is not None:
        found |= {names.TENANT: exchange.key.team, names.KEY_ID: exchange.key.id}
    if (release := exchange.release) is not None:
        found |= {
            names.RELEASE_NAME: release.model,
            names.RELEASE_VERSION: release.version,
            names.RELEASE_KIND: release.kind.value,
        }
    if exchange.trail:
        found[names.DECISIONS] = [decision.words(fact) for fact in exchange.trail]
    if exchange.rule is not None:
        found[names.COST_RULE] = exchange.rule.value
    if exchange.amount is not None:
        found[names.COST_PICO_USD] = exchange.amount
    if scores:
        return found | {names.BATCH_ROWS: exchange.usage.rows if exchange.usage else 0}
    if (usage := exchange.usage) is not None:
        found |= {names.INPUT_TOKENS: usage.input_tokens, names.OUTPUT_TOKENS: usage.output_tokens}
        if usage.cached_input_tokens:
            found[names.CACHE_READ_TOKENS] = usage.cached_input_tokens
    if not exchange.operation.generates:
        return found
    if exchange.response_id:
        found[names.RESPONSE_ID] = exchange.response_id
    if exchange.finish_reasons:
        found[names.FINISH_REASONS] = list(exchange.finish_reasons)
    if exchange.stream and exchange.first_byte_at is not None:
        found[names.TIME_TO_FIRST_CHUNK] = exchange.first_byte_at - exchange.clock
    if exchange.trace is not None and exchange.trace.content is not None:
        found |= exchange.trace.content.attributes()
    return found


class TraceLog:
    """Takes what requests noted, and makes their spans a little later."""

    def __init__(self, provider: TracerProvider, *, content: bool = False) -> None:
        """Take the process's provider, and whether spans hold the text of requests and answers."""
        self._provider = provider
        self._content = content
        self._waiting: deque[Exchange] = deque()
        self._closing = threading.Event()
        self.dropped = 0
        """Requests whose spans were given up, because making them could not keep up."""
        self._thread = threading.Thread(target=self._run, name="trilith-trace", daemon=True)
        self._thread.start()

    def begin(self, exchange: Exchange) -> None:
        """Start to note."""
        exchange.trace = RequestTrace(exchange.headers, Content() if self._content else None)

    def end(self, exchange: Exchange, error: BaseException | None) -> None:
        """Take a request that has ended."""
        noted = exchange.trace
        if noted is None:
            return
        noted.ended_ns = time.time_ns()
        noted.error = type(error).__name__ if error is not None else None
        if noted.content is not None and exchange.call is not None:  # routed: no policy has refused it
            noted.content.asked = exchange.call.body
        exchange.raw, exchange.body, exchange.call, exchange.reply = b"", {}, None, None  # no text waits here
        if exchange.answer is not None:
            exchange.answer.body = b""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(exchange)
        else:
            self.dropped += 1

    def _run(self) -> None:
        while not self._closing.wait(_DELAY_S):
            self._write()

    def _write(self) -> None:
        processor = self._provider._active_span_processor  # the SDK has no public way to hand it a made span
        while self._waiting:
            exchange = self._waiting.popleft()
            try:
                for made in _spans(exchange.trace, exchange, self._provider) if exchange.trace else ():
                    processor.on_end(made)
            except Exception:  # one span that cannot be made must not end all others
                _log.exception("the spans of request %s could not be made", exchange.id)

    def close(self) -> None:
        """Make what is left."""
        self._closing.set()
        self._thread.join()
        self._write()
