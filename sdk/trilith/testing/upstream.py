"""An in-memory upstream that speaks OpenAI's chat protocol: the twin of a language model server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from trilith.errors import APIConnectionError
from trilith.seams import Call

Speak = Callable[[dict[str, Any]], str]
"""Makes an answer's text from a decoded request."""


def echo(request: dict[str, Any]) -> str:
    """Answer with the last message's text, or with the prompt."""
    messages = request.get("messages")
    return str(messages[-1].get("content") if messages else request.get("prompt", ""))


class MemoryReply:
    """A scripted answer; counts as aborted when it is closed before its end."""

    def __init__(
        self,
        status: int,
        parts: AsyncIterator[bytes],
        *,
        content_type: str = "application/json",
        on_abort: Callable[[], None] = lambda: None,
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": content_type}
        self._parts = parts
        self._on_abort = on_abort
        self._complete = False

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the parts in order."""
        async for part in self._parts:
            yield part
        self._complete = True

    async def aclose(self) -> None:
        """Note whether the answer was complete."""
        if not self._complete:
            self._complete = True
            self._on_abort()


class MemoryUpstream:
    """Answers chats and completions from memory, streamed or not, with usage that counts words as tokens.

    Args:
        reply: The answer's text, or what makes it from the request; echoes by default.
        chunks: Into how many pieces of equal length a stream cuts the text; None: one per word.
        delay_s: Pause before an answer, and before each piece of a stream (seconds).
        fail_with: What the first calls end in: an HTTP status to answer with, or an error to raise.
        break_after: Break the connection after so many pieces of a stream; None: never.
        reports_usage: Whether answers carry usage.
    """

    def __init__(
        self,
        reply: str | Speak = echo,
        *,
        chunks: int | None = None,
        delay_s: float = 0.0,
        fail_with: Sequence[int | Exception] = (),
        break_after: int | None = None,
        reports_usage: bool = True,
    ) -> None:
        self.calls: list[Call] = []
        """Every call so far."""
        self.aborted = 0
        """How many answers were given up before their end."""
        self.fail_headers: Mapping[str, str] = {}
        """Added to answers of `fail_with`, such as `retry-after`."""
        self.streamed = 0
        """How many pieces of streams have been taken."""
        self._reply = (lambda _: reply) if isinstance(reply, str) else reply
        self._chunks = chunks
        self._delay_s = delay_s
        self._failures = list(fail_with)
        self._break_after = break_after
        self._reports_usage = reports_usage

    async def send(self, call: Call) -> MemoryReply:
        """Answer one call."""
        self.calls.append(call)
        if self._failures:
            failure = self._failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            error = {"error": {"message": "scripted", "type": "scripted", "param": None, "code": None}}
            refused = MemoryReply(failure, parts([json.dumps(error).encode()]))
            refused.headers = {**refused.headers, **self.fail_headers}
            return refused
        try:
            await asyncio.sleep(self._delay_s)
        except asyncio.CancelledError:
            self._abort()
            raise
        request = json.loads(call.body)
        text = self._reply(request)
        usage = _usage(request, text) if self._reports_usage else None
        if request.get("stream"):
            stream = self._stream(request, text, usage)
            return MemoryReply(200, stream, content_type="text/event-stream", on_abort=self._abort)
        answer = _answer(request, _choice(request, text, streamed=False, finish="stop"))
        return MemoryReply(200, parts([json.dumps(answer | ({"usage": usage} if usage else {})).encode()]))

    async def ready(self) -> bool:
        """Return True."""
        return True

    async def aclose(self) -> None:
        """Do nothing."""

    def _abort(self) -> None:
        self.aborted += 1

    async def _stream(
        self, request: dict[str, Any], text: str, usage: dict[str, int] | None
    ) -> AsyncIterator[bytes]:
        for number, piece in enumerate(_pieces(text, self._chunks)):
            if number == self._break_after:
                raise APIConnectionError("scripted break")
            await asyncio.sleep(self._delay_s)
            self.streamed += 1
            yield _event(_answer(request, _choice(request, piece, streamed=True)))
        yield _event(_answer(request, _choice(request, "", streamed=True, finish="stop")))
        if usage and (request.get("stream_options") or {}).get("include_usage"):
            yield _event({**_answer(request), "usage": usage})
        yield b"data: [DONE]\n\n"


async def parts(given: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield what is given."""
    for part in given:
        yield part


def _pieces(text: str, count: int | None) -> list[str]:
    if count is None:
        words = text.split(" ")
        return [word if at == len(words) - 1 else word + " " for at, word in enumerate(words)]
    size = max(1, -(-len(text) // count))
    return [text[at : at + size] for at in range(0, len(text), size)]


def _usage(request: dict[str, Any], text: str) -> dict[str, int]:
    asked = sum(len(str(message.get("content")).split()) for message in request.get("messages") or ())
    prompt = asked or len(str(request.get("prompt", "")).split())
    said = len(text.split())
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}


def _answer(request: dict[str, Any], *choices: dict[str, Any]) -> dict[str, Any]:
    kind = "chat.completion" if "messages" in request else "text_completion"
    chunk = ".chunk" if request.get("stream") and "messages" in request else ""
    return {
        "id": "memory-1",
        "object": kind + chunk,
        "created": 0,
        "model": request.get("model"),
        "choices": list(choices),
    }


def _choice(
    request: dict[str, Any], text: str, *, streamed: bool, finish: str | None = None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if "messages" not in request:
        return choice | {"text": text}
    message = {"role": "assistant", "content": text}
    return choice | ({"delta": message} if streamed else {"message": message})


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"
