"""An upstream in memory that says what a test tells it to say, in order; the last answer again and again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from trilith.seams import Call
from trilith.testing.upstream import MemoryReply

Piece: TypeAlias = bytes | Exception
Telling: TypeAlias = dict[str, Any] | tuple[int, dict[str, Any]] | list[Piece] | Exception
"""A whole answer (with its status), a stream's events, or what goes wrong; an exception among the events
breaks it off there."""


class TellingUpstream:
    def __init__(self, *answers: Telling) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.aborted = 0

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(told, Exception):
            raise told
        if isinstance(told, list):
            return MemoryReply(200, _pieces(told), content_type="text/event-stream", on_abort=self._abort)
        status, body = told if isinstance(told, tuple) else (200, told)
        return MemoryReply(status, _pieces([json.dumps(body).encode()]))

    def _abort(self) -> None:
        self.aborted += 1

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


async def _pieces(pieces: list[Piece]) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def answer(usage: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A chat's answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    return {"id": "a", "choices": [choice], **({"usage": usage} if usage is not None else {}), **fields}


def said(text: str, **fields: Any) -> bytes:
    """One event of a chat's stream."""
    return event({"id": "a", "choices": [{"index": 0, "delta": {"content": text}}], **fields})


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
