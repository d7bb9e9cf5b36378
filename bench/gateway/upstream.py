"""A model server that costs next to nothing: fixed answers in OpenAI's shape, whole or streamed.

`python -m bench.gateway.upstream PORT`. A body with `"stream":true` gets 256 chunks at once, any other a
short answer. A mark such as `[[cut]]` in the prompt asks for something else (`Server._special`), because
prompts are what every gateway passes on. `GET /_seen` says what has come since it was asked last, and when
callers left.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable

import httptools
import uvloop

_ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"one two three four five six seven eight nine ten eleven twelve"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":16,"total_tokens":116}}'
)
_LIMITS = "x-ratelimit-remaining-requests: 77\r\nx-ratelimit-remaining-tokens: 7777\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_START = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
FLOOD = 256
PACED = 64
SILENCE_S = 0.02
PACE_S = 0.005


def whole(status: int, body: bytes, more: str = "") -> bytes:
    """Return an answer of one piece."""
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _refusal(status: int, code: str) -> bytes:
    error = {"message": f"said by the upstream: {code}", "type": code, "param": None, "code": code}
    more = f"retry-after: 7\r\n{_LIMITS}" if status == 429 else ""
    return whole(status, json.dumps({"error": error}).encode(), more)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


PIECE = _chunk(_START + b'[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n')
_LAST = (
    _chunk(_START + b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    + _chunk(_START + b'[],"usage":{"prompt_tokens":100,"completion_tokens":256,"total_tokens":356}}\n\n')
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
_WHOLE = whole(200, _ANSWER)
_FLOOD = _HEAD + PIECE * FLOOD + _LAST
_MODELS = whole(200, b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"bench"}]}')
_MARK = re.compile(rb"\[\[(\w+)\]\]")
_FIXED = {
    b"limits": whole(200, _ANSWER, _LIMITS),
    b"429": _refusal(429, "rate_limit_exceeded"),
    b"400": _refusal(400, "context_length_exceeded"),
    b"500": _refusal(500, "server_error"),
}


class Seen:
    """What has come since somebody asked."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self.calls = 0
        self.body = ""
        self.headers: dict[str, str] = {}
        self.left_at: float | None = None


class Server(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._work: asyncio.Task[None] | None = None
        self._hangs = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Note when a caller left in the middle of something."""
        if self._hangs or (self._work is not None and not self._work.done()):
            self._seen.left_at = time.monotonic()
        if self._work is not None:
            self._work.cancel()

    def _begin(self) -> None:
        self._body = b""
        self._url = b""
        self._headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        """Take the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if name.lower() == b"x-request-id":
            self._headers["x-request-id"] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        raw, url, headers = self._body, self._url, self._headers
        self._begin()
        if self._parser.get_method() == b"GET":
            self.transport.write(self._tell() if url == b"/_seen" else _MODELS)
            return
        if b"[[" in raw and (mark := _MARK.search(raw)) is not None:
            self._seen.calls += 1
            self._seen.body, self._seen.headers = raw.decode("utf-8", "replace"), headers
            self._special(mark[1])
        elif b'"stream":true' in raw or b'"stream": true' in raw:
            self.transport.write(_FLOOD)
        else:
            self.transport.write(_WHOLE)

    def _tell(self) -> bytes:
        told = whole(200, json.dumps(self._seen.__dict__).encode())
        self._seen.clear()
        return told

    def _special(self, mark: bytes) -> None:
        if mark in _FIXED:
            self.transport.write(_FIXED[mark])
        elif mark == b"hang":
            self._hangs = True
        else:
            streams: dict[bytes, Callable[[], int]] = {
                b"paced": lambda: PACED,
                b"first": lambda: 2,
                b"cut": lambda: 3,
                b"endless": lambda: 2000,
            }
            count = streams[mark]()
            self._work = asyncio.get_running_loop().create_task(self._stream(count, whole=mark != b"cut"))

    async def _stream(self, count: int, *, whole: bool) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + SILENCE_S
        await asyncio.sleep(SILENCE_S)
        self.transport.write(_HEAD + PIECE)
        for _ in range(count - 1):
            at += PACE_S
            await asyncio.sleep(max(0, at - loop.time()))
            self.transport.write(PIECE)
        if whole:
            self.transport.write(_LAST)
        else:
            self.transport.abort()


async def main() -> None:
    """Serve until killed."""
    seen = Seen()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(seen), "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
