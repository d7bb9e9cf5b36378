"""Stage 5, route: release -> the call that its upstream understands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from trilith.seams import Call
from trilith.types import Kind
from trilith_gateway import charge, deadline, multipart, request, sse
from trilith_gateway.exchange import Exchange


class Route:
    """Prepares the upstream's call."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def __call__(self, exchange: Exchange) -> None:
        """Set `exchange.call`.

        Raises:
            APITimeoutError: the caller's time for the request is up.
        """
        if exchange.answer is not None:
            return
        operation = exchange.operation
        changes = _changes(exchange) if operation.renames else None
        if operation.form:
            body = multipart.splice(exchange.raw, exchange.headers, changes) if changes else exchange.raw
        elif exchange.masked and operation.renames:  # tables are checked, never masked
            body = sse.dump({**exchange.body, **changes} if changes else exchange.body)
        else:
            body = request.splice(exchange.raw, exchange.body, changes) if changes else exchange.raw
        headers = {"content-type": "application/json", "x-request-id": exchange.request_id}
        if operation.headers:
            headers |= operation.headers
        for name in operation.forwards:
            if (value := exchange.headers.get(name)) is not None:
                headers[name] = value
        timeout_s = self._timeout_s
        if deadline.HEADER in exchange.headers or deadline.READ_HEADER in exchange.headers:
            timeout_s = self._left(exchange)
            if exchange.until is not None:
                headers[deadline.HEADER] = deadline.told(timeout_s)
        release = exchange.target
        exchange.call = Call(
            path=operation.path or exchange.path,
            body=body,
            headers=headers,
            timeout_s=timeout_s,
            affinity=_beginning(exchange) if operation.generates and release.tries_again else None,
            json=exchange.body if operation.scores else None,
            shield=exchange.protection if release.kind is Kind.RAG else None,
            tried=partial(charge.note_tried, exchange) if release.tries_again else None,
            tag=exchange.tag,
            only=exchange.only,
            repeatable=operation.repeatable,
            trail=exchange.trail,
        )

    def _left(self, exchange: Exchange) -> float:
        """Note by when the answer must be there, and return what is left for all of it (seconds)."""
        whole_s, head_s = deadline.read(exchange.headers, stream=exchange.stream)
        if head_s is not None and head_s >= self._timeout_s and deadline.HEADER not in exchange.headers:
            return self._timeout_s  # what the OpenAI SDK says when nobody told it anything
        if whole_s is not None:
            exchange.until = exchange.clock + whole_s
        if head_s is not None:
            exchange.head_until = exchange.clock + head_s
        now = time.perf_counter()
        if exchange.head_until is not None and exchange.head_until <= now:
            raise deadline.passed()
        return self._timeout_s if exchange.until is None else min(self._timeout_s, exchange.until - now)


def _beginning(exchange: Exchange) -> bytes | None:
    """Return what all turns of one conversation have in common: its first words, instructions included."""
    messages = exchange.body.get("messages")
    return sse.dump(messages[: _first_turn(messages)]) if messages else None


def _first_turn(messages: Sequence[dict[str, Any]]) -> int:
    """Return how many messages there are up to the first of the user: later turns only add to them."""
    for at, message in enumerate(messages):
        if message["role"] == "user":
            return at + 1
    return 1


def _changes(exchange: Exchange) -> dict[str, Any]:
    """Return what must differ from the caller's body: the model, a bounded answer, usage in streams."""
    release, body = exchange.target, exchange.body
    changes: dict[str, Any] = {}
    if body.get("model") != release.upstream_model:
        changes["model"] = release.upstream_model
    limits = exchange.operation.limits
    for name in limits:
        if body.get(name) is not None:
            break
    else:
        if limits:
            changes[limits[0]] = release.max_output_tokens
    if exchange.stream and exchange.operation.generates:
        given = body.get("stream_options") or {}
        options = {**given, "include_usage": True}
        if release.counts_stream_usage:
            options["continuous_usage_stats"] = True  # so that a stream which is given up is charged exactly
        if options != given:
            changes["stream_options"] = options
    return changes
