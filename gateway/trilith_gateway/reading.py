"""What is read of an answer as it passes: its usage, and what the request's span tells of it.

Bytes pass through as they come. A stream's chunks are decoded only where usage stands in them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from json import JSONDecodeError
from typing import Any

import orjson

from trilith.errors import APIConnectionError
from trilith.seams import Reply
from trilith.types import Usage
from trilith_gateway import charge, kept, sse
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release
from trilith_gateway.usage import Portions, read_usage

_LARGE_BYTES = 64 * 1024
"""From this length on an answer is never decoded as a whole if its usage is found at its end."""

_OBJECT = rb"(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}|null)"
_LAST_FIELD = re.compile(rb',\s*"usage":\s*' + _OBJECT + rb"(?=\s*\}\r?\n\r?\n)")
"""Usage as the last field of an event. Within a JSON string its quotes would be escaped."""
_ANYWHERE = re.compile(rb'"usage":\s*' + _OBJECT)
"""Usage wherever it stands."""
_ID = re.compile(rb'"id":\s*"([^"\\]{1,128})"')
_FINISHED = re.compile(rb'"finish_reason":\s*"([a-z_]{1,32})"')


def read_scored(headers: Mapping[str, str], release: Release) -> Usage | None:
    """Read what a predictor used from the headers of its answer."""
    told = {"rows": headers.get("x-trilith-rows")}
    if release.price is not None and release.price.cpu_hour:
        told["cpu_ns"] = headers.get("x-trilith-cpu-ns")
    return read_usage(told)


def read(exchange: Exchange, reply: Reply, body: bytes) -> None:
    """Note what a whole answer tells."""
    operation = exchange.operation
    if operation.scores:
        exchange.usage = read_scored(reply.headers, exchange.target)
        return
    if not body.startswith(b"{"):
        return
    searched = exchange.api is Api.RESPONSE and "tools" in exchange.body
    if not (operation.whole_usage or searched) and (exchange.trace is None or len(body) > _LARGE_BYTES):
        # Only a span wants to know more than the usage.
        match = _ANYWHERE.match(body, body.rfind(b'"usage"'))
        if match is not None:
            try:
                told = {"usage": orjson.loads(match[1])}
            except JSONDecodeError:
                return  # nor is the whole of it JSON
            if (
                operation.limits
                and b'"service_tier"' in body
                and (tier := charge.TIER.search(body)) is not None
            ):
                told["service_tier"] = tier[1].decode()
            exchange.usage = operation.read_usage(told)
            if exchange.usage is not None:
                return
    try:
        value = orjson.loads(body)
    except JSONDecodeError:
        return
    if type(value) is dict:
        _note(exchange, value)


async def watch(exchange: Exchange, reply: Reply) -> AsyncIterator[bytes]:
    """Pass blocks of events on, noting usage; reports that the caller did not ask for are taken out."""
    last = b""
    tally, portions = exchange.tally, _portions(exchange)
    async for block in sse.blocks(reply.chunks()):
        last = block
        if tally is not None:
            tally.add(block)
        if exchange.trace is not None:
            _describe(exchange, block)
        # The word alone is found in half the time.
        if (at := block.find(b"usage")) > 0 and (at := block.find(b'"usage"', at - 1)) >= 0:
            block = _without_usage(exchange, block, at, portions)
        if block:
            yield block
    mark = exchange.operation.ends_with
    if mark is not None and not sse.ends(last, mark):
        raise APIConnectionError(
            f"the upstream ended its stream without {mark.decode()}", request_id=exchange.request_id
        )


def _describe(exchange: Exchange, block: bytes) -> None:
    """Note what the request's span tells of its answer."""
    if exchange.response_id is None and (found := _ID.search(block)) is not None:
        exchange.response_id = found[1].decode("ascii", "replace")
    if finished := _FINISHED.findall(block):
        exchange.finish_reasons = tuple(reason.decode() for reason in finished)
    if exchange.trace is not None and exchange.trace.content is not None:
        exchange.trace.content.hear(block)


def _portions(exchange: Exchange) -> Portions | None:
    """Return what adds the reports of several choices up, where each chunk tells of one of them."""
    if not exchange.operation.generates:
        return None
    if not (exchange.target.counts_stream_usage or _each_chunk(exchange)):
        return None
    prompt, choices = exchange.body.get("prompt"), exchange.body.get("n") or 1
    return Portions(choices) if choices > 1 or (type(prompt) is list and len(prompt) > 1) else None


def _without_usage(exchange: Exchange, block: bytes, at: int, portions: Portions | None) -> bytes:
    """Note a block's usage, first at `at`, and return the block as the caller wants to see it."""
    before = block.rfind(b"\n\n", 0, at)
    first = before + 2 if before >= 0 else 0  # what stands before needs no look
    reports = _LAST_FIELD.findall(block, first)
    if portions is None and len(reports) == block.count(b'"usage"', first):
        told = [report for report in reports if report != b"null"]
        if not told:
            return block
        if exchange.target.counts_stream_usage and b'"choices":[]' not in block:
            # `continuous_usage_stats`, which we asked for: usage beside text in every chunk.
            exchange.usage = read_usage(orjson.loads(told[-1])) or exchange.usage
            return block if _each_chunk(exchange) else _LAST_FIELD.sub(b"", block)
    parts = [block[:first]]
    for event in sse.events(block[first:]):
        value = sse.decode(event) if b'"usage"' in event else None
        if value is None:
            parts.append(event)
            continue
        if value.get("type") == "message_delta":
            exchange.tally = None  # what Anthropic tells at the end is the whole
        known = exchange.usage
        _note(exchange, value)
        if portions is not None and exchange.usage is not None and exchange.usage is not known:
            exchange.usage = portions.add(value, exchange.usage)
        asked = _asked_for(exchange, value)
        if asked is value:
            parts.append(event)
        elif asked is not None:
            parts.append(sse.encode(asked))
    return b"".join(parts)


def _each_chunk(exchange: Exchange) -> bool:
    """Say whether the caller itself asked for usage in every chunk."""
    return (exchange.body.get("stream_options") or {}).get("continuous_usage_stats") is True


def _asked_for(exchange: Exchange, value: dict[str, Any]) -> dict[str, Any] | None:
    """Return the chunk without usage that was not asked for: the same object, a copy, or None."""
    if "usage" not in value or not exchange.operation.generates:
        return value
    if value.get("choices"):
        if not exchange.target.counts_stream_usage or _each_chunk(exchange):
            return value
        return {name: part for name, part in value.items() if name != "usage"}
    return value if exchange.usage_wanted else None


def _note(exchange: Exchange, value: dict[str, Any]) -> None:
    if exchange.operation.keeps:
        exchange.kept_as = kept.digest(kept.named(value)) or exchange.kept_as
    found = exchange.operation.read_usage(value)
    if found is not None:
        before, together = exchange.usage, exchange.operation.together
        exchange.usage = found if together is None or before is None else together(before, found)
    if exchange.response_id is None and type(name := value.get("id")) is str:
        exchange.response_id = name
    if (choices := value.get("choices")) and type(choices) is list:
        reasons = [choice.get("finish_reason") for choice in choices if type(choice) is dict]
        exchange.finish_reasons = tuple(filter(None, reasons)) or exchange.finish_reasons
