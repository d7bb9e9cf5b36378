"""Server-sent events as bytes: cut a stream into whole events without changing a byte."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

DONE = b"data: [DONE]\n\n"


async def split(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    r"""Yield whole events, each with its closing blank line, as soon as they are complete.

    Line ends may be `\n` or `\r\n`; a last event without its blank line is yielded as it is.
    """
    held = b""
    async for chunk in chunks:
        held += chunk
        while (cut := _end(held)) is not None:
            yield held[:cut]
            held = held[cut:]
    if held.strip():
        yield held


def _end(held: bytes) -> int | None:
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := held.find(mark)) >= 0]
    return min(ends) if ends else None


def data(event: bytes) -> bytes | None:
    """Return the event's data, its lines joined; None for comments and events without data."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def decode(event: bytes) -> dict[str, Any] | None:
    """Return the event's JSON object; None when it carries none (comments, `[DONE]`)."""
    payload = data(event)
    if payload is None or not payload.startswith(b"{"):
        return None
    try:
        value = json.loads(payload)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def encode(value: object) -> bytes:
    """Return one event that carries `value` as JSON."""
    return b"data: " + dump(value) + b"\n\n"


def dump(value: object) -> bytes:
    """Return compact UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
