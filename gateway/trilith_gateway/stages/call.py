"""Stage 6, call: sends the call, and reads usage from the answer as it passes."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry.trace import SpanKind, Tracer

from trilith.errors import APIConnectionError
from trilith.seams import Call as UpstreamCall
from trilith.seams import Reply, Upstream
from trilith.telemetry import names, span
from trilith_gateway import sse
from trilith_gateway.exchange import Answer, Api, Exchange
from trilith_gateway.usage import read_usage

_PASSED_ON = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")


class Call:
    """Asks the release's upstream, once more if the first connection failed before anything was sent back."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def __call__(self, exchange: Exchange) -> None:
        """Set `exchange.answer`."""
        if exchange.answer is not None or exchange.call is None:
            return
        reply = await self._attempts(exchange, exchange.target.upstream, exchange.call)
        exchange.reply = reply
        exchange.first_byte_at = time.perf_counter()
        headers = {name: reply.headers[name] for name in _PASSED_ON if name in reply.headers}
        streams = headers.get("content-type", "").startswith("text/event-stream")
        if reply.status < 400 and streams:
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            exchange.answer = Answer(reply.status, headers, events=_watch(exchange, reply))
            return
        body = b"".join([chunk async for chunk in reply.chunks()])
        if reply.status < 400:
            _read(exchange, reply, body)
        exchange.answer = Answer(reply.status, headers, body)

    async def _attempts(self, exchange: Exchange, upstream: Upstream, call: UpstreamCall) -> Reply:
        for index in (0, 1):
            attributes = {names.REQUEST_MODEL: exchange.model, names.ATTEMPT_INDEX: index}
            try:
                with span(
                    "attempt", exchange.model, attributes, kind=SpanKind.CLIENT, using=self._tracer
                ) as current:
                    reply = await upstream.send(call)
                    current.set_attribute(names.HTTP_STATUS, reply.status)
                    return reply
            except APIConnectionError as error:
                if index or not error.retryable:
                    raise
        raise RuntimeError("unreachable: the last attempt returns or raises")


def _read(exchange: Exchange, reply: Reply, body: bytes) -> None:
    if exchange.api is Api.PREDICT:
        exchange.usage = read_usage({"rows": reply.headers.get("x-trilith-rows")})
        return
    try:
        value = json.loads(body)
    except ValueError:
        return
    if isinstance(value, dict):
        _note(exchange, value)


async def _watch(exchange: Exchange, reply: Reply) -> AsyncIterator[bytes]:
    """Pass events on, noting usage; reports of usage that the caller did not ask for are taken out."""
    ended = False
    async for event in sse.split(reply.chunks()):
        value = sse.decode(event)
        if value is None:
            ended = ended or sse.data(event) == b"[DONE]"
            yield event
            continue
        _note(exchange, value)
        asked = _asked_for(exchange, value)
        if asked is value:
            yield event
        elif asked is not None:
            yield sse.encode(asked)
    if not ended:
        raise APIConnectionError("the upstream ended its stream without [DONE]", request_id=exchange.id)


def _asked_for(exchange: Exchange, value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the chunk without usage that was not asked for: the same object, a copy, or None."""
    if "usage" not in value:
        return value
    if value.get("choices"):  # usage beside text comes from `continuous_usage_stats`, which we asked for
        if not exchange.target.counts_stream_usage:
            return value
        return {name: part for name, part in value.items() if name != "usage"}
    return value if exchange.usage_wanted else None


def _note(exchange: Exchange, value: dict[str, Any]) -> None:
    if (usage := value.get("usage")) is not None:
        exchange.usage = read_usage(usage) or exchange.usage
    exchange.response_id = value.get("id") or exchange.response_id
    reasons = [
        choice.get("finish_reason") for choice in value.get("choices") or () if isinstance(choice, dict)
    ]
    exchange.finish_reasons = tuple(filter(None, reasons)) or exchange.finish_reasons
