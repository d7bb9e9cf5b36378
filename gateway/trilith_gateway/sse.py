"""Server-sent events as bytes: cut a stream into whole events without changing a byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from json import JSONDecodeError
from typing import Any

import orjson

from trilith.errors import APIConnectionError

DONE = b"data: [DONE]\n\n"

_MARKS = (b"\n\n", b"\r\n\r\n")
_MOST_BYTES = 16 * 1024 * 1024
"""Longest event that is waited for; an upstream that sends more without an end is broken."""


async def blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    r"""Yield the stream in blocks of one or more whole events, as soon as they are complete.

    Line ends may be `\n` or `\r\n`; a last event without its blank line is yielded as it is.

    Raises:
        APIConnectionError: an event does not end.
    """
    held = bytearray()
    async for chunk in chunks:
        if not held and chunk.endswith(b"\n\n"):  # how nearly every read ends
            yield chunk
            continue
        seen = max(0, len(held) - 3)  # the longest mark may have begun with what is held
        held += chunk
        ends_at = [at + len(mark) for mark in _MARKS if (at := held.rfind(mark, seen)) >= 0]
        if cut := max(ends_at, default=0):
            block = bytes(held[:cut])
            del held[:cut]
            yield block
        if len(held) > _MOST_BYTES:
            raise APIConnectionError(f"the upstream sent an event of more than {_MOST_BYTES:,} bytes")
    if held.strip():
        yield bytes(held)


def events(block: bytes) -> list[bytes]:
    """Cut a block into its events, each with its closing blank line."""
    if b"\r" not in block:  # the usual form
        parts = block.split(b"\n\n")
        rest = parts.pop()
        whole = [part + b"\n\n" for part in parts]
        return [*whole, rest] if rest else whole
    found: list[bytes] = []
    while block:
        ends = [at + len(mark) for mark in _MARKS if (at := block.find(mark)) >= 0]
        cut = min(ends, default=len(block))
        found.append(block[:cut])
        block = block[cut:]
    return found


async def split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield single whole events, each with its closing blank line."""
    async for block in blocks(chunks):
        for event in events(block):
            yield event


def ends(block: bytes, mark: bytes | None) -> bool:
    """Say whether the block's last event carries `mark` as its data."""
    if mark is None:
        return False
    tail = block[-len(mark) - 16 :].rstrip()
    return tail.endswith(mark) and tail[: -len(mark)].rstrip(b" ").endswith(b"data:")


def data(event: bytes) -> bytes | None:
    """Return the event's data, its lines joined; None for comments and events without data."""
    if event.startswith(b"data: ") and event.endswith(b"\n\n") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]  # the usual form, without looking at each line
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def decode(event: bytes) -> dict[str, Any] | None:
    """Return the event's JSON object; None when it carries none (comments, `[DONE]`)."""
    payload = data(event)
    if payload is None or not payload.startswith(b"{"):
        return None
    try:
        value = orjson.loads(payload)
    except JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def encode(value: object) -> bytes:
    """Return one event that carries `value` as JSON."""
    return b"data: %b\n\n" % dump(value)


def encode_named(value: dict[str, Any]) -> bytes:
    """Return one event that carries `value` as JSON, under the name of its `type`."""
    return b"event: %b\ndata: %b\n\n" % (str(value.get("type", "message")).encode(), dump(value))


def dump(value: object) -> bytes:
    """Return compact UTF-8 JSON."""
    return orjson.dumps(value)
