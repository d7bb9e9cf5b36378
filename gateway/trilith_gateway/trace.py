"""What a request notes for its spans on its way: identifiers and times; `tracelog` makes the spans."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from opentelemetry.context import attach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from trilith_gateway.content import Content
from trilith_gateway.identifier import random_bytes

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Attempt:
    """One try at an upstream."""

    __slots__ = ("ended_ns", "error", "index", "span_id", "started_ns", "status")

    def __init__(self, index: int) -> None:
        self.index = index
        self.span_id = random_bytes(8)
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self.status: int | None = None
        self.error: str | None = None

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        """Note how it went."""
        self.ended_ns = time.time_ns()
        self.status = status
        self.error = type(error).__name__ if error is not None else None


class RequestTrace:
    """What a request notes for its spans."""

    __slots__ = ("attempts", "content", "ended_ns", "error", "parent_id", "span_id", "trace_id")

    def __init__(self, headers: Mapping[str, str], content: Content | None = None) -> None:
        """Continue the caller's trace (W3C `traceparent`), or begin one.

        Args:
            headers: The caller's.
            content: What keeps the text for the span; None: no text is kept.
        """
        match = _PARENT.fullmatch(given) if (given := headers.get("traceparent")) is not None else None
        if match is None or int(match[1], 16) == 0 or int(match[2], 16) == 0:
            self.trace_id, self.parent_id = random_bytes(16), None
        else:
            self.trace_id, self.parent_id = bytes.fromhex(match[1]), bytes.fromhex(match[2])
        self.span_id = random_bytes(8)
        self.attempts: list[Attempt] = []
        self.content = content
        self.ended_ns = 0
        self.error: str | None = None

    def header(self, attempt: Attempt) -> str:
        """Return the `traceparent` for an upstream."""
        return f"00-{self.trace_id.hex()}-{attempt.span_id.hex()}-01"

    def enter(self, attempt: Attempt | None = None) -> None:
        """Make the request's span, or an attempt's, the current one for the rest of this task."""
        attach(set_span_in_context(NonRecordingSpan(self.context((attempt or self).span_id))))

    def context(self, span_id: bytes, *, remote: bool = False) -> SpanContext:
        """Make the context of a span of this trace."""
        return SpanContext(int.from_bytes(self.trace_id), int.from_bytes(span_id), remote, _SAMPLED)
