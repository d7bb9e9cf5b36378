"""The text of a request on its span, for platforms that switch `telemetry.content` on; by default: none.

It is the text as the model saw and wrote it: what a policy masks stands there as placeholders, and a request
that a policy refused leaves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from opentelemetry.util.types import AttributeValue

from trilith.telemetry import names
from trilith_gateway import sse

_MOST_BYTES = 256 * 1024
"""How much of an answer is kept for its span; what comes later is left out."""


class Content:
    """Question and answer of one request, kept as bytes until its span is made."""

    __slots__ = ("_said", "_size", "asked", "masked")

    def __init__(self) -> None:
        self.asked = b""
        """The body that went to the upstream."""
        self.masked: Mapping[str, Any] | None = None
        """The body with placeholders, where the upstream in this process got one without."""
        self._said: list[bytes] = []
        self._size = 0

    def hear(self, part: bytes) -> None:
        """Take a whole answer, or a block of a stream's events, as the upstream sent it."""
        self._size += len(part)
        if self._size <= _MOST_BYTES:
            self._said.append(part)

    def attributes(self) -> dict[str, AttributeValue]:
        """Return the attributes of the GenAI conventions; messages as JSON."""
        asked = self.masked if self.masked is not None else _decoded(self.asked)
        found = {
            names.INPUT_MESSAGES: list(_asked(asked)),
            names.OUTPUT_MESSAGES: _said(b"".join(self._said)),
        }
        return {
            name: json.dumps(messages, ensure_ascii=False) for name, messages in found.items() if messages
        }


def _asked(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for message in _list(body.get("messages")):
        if isinstance(message, dict):
            yield _message(str(message.get("role") or "user"), message.get("content"))
    for field in ("prompt", "input"):
        if isinstance(text := body.get(field), str):
            yield _message("user", text)


def _said(answer: bytes) -> list[dict[str, Any]]:
    """Put an answer together, one message per choice."""
    texts: dict[int, list[str]] = {}
    reasons: dict[int, str] = {}
    values = [_decoded(answer)] if answer.startswith(b"{") else map(sse.decode, sse.events(answer))
    for value in values:
        for choice in _list((value or {}).get("choices")):
            if not isinstance(choice, dict):
                continue
            number = choice.get("index") or 0
            part = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
            if isinstance(part, dict) and isinstance(part.get("content"), str):
                texts.setdefault(number, []).append(part["content"])
            if isinstance(reason := choice.get("finish_reason"), str):
                reasons[number] = reason
    return [
        {**_message("assistant", "".join(parts)), "finish_reason": reasons.get(number, "")}
        for number, parts in sorted(texts.items())
    ]


def _message(role: str, content: object) -> dict[str, Any]:
    if isinstance(content, str):
        return {"role": role, "parts": [{"type": "text", "content": content}]}
    texts = [part.get("text") for part in _list(content) if isinstance(part, dict)]
    return {"role": role, "parts": [{"type": "text", "content": t} for t in texts if isinstance(t, str)]}


def _decoded(body: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
