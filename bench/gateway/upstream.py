"""A model server that costs next to nothing: fixed answers in OpenAI's shape, whole or streamed.

`python -m bench.gateway.upstream PORT`. A body with `"stream":true` gets 256 chunks at once, or with
`"user":"paced"` 20 ms of silence and then 64 chunks, 5 ms apart. Any other gets a short answer.
"""

from __future__ import annotations

import asyncio
import sys

import httptools
import uvloop

_ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"one two three four five six seven eight nine ten eleven twelve"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":16,"total_tokens":116}}'
)
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(_ANSWER),
    _ANSWER,
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_START = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
FLOOD = 256
PACED = 64


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_PIECE = _chunk(_START + b'[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n')
_LAST = (
    _chunk(_START + b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n')
    + _chunk(_START + b'[],"usage":{"prompt_tokens":100,"completion_tokens":256,"total_tokens":356}}\n\n')
    + _chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"bench"}]}'


class Server(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Collect."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        body, self.body = self.body.replace(b" ", b""), b""
        write = self.transport.write  # type: ignore[attr-defined]
        if self.parser.get_method() == b"GET":
            write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(_MODELS), _MODELS)
            )
        elif b'"stream":true' not in body:
            write(_WHOLE)
        elif b'"user":"paced"' in body:
            asyncio.get_running_loop().create_task(self._paced())
        else:
            write(_HEAD + _PIECE * FLOOD + _LAST)

    async def _paced(self) -> None:
        write = self.transport.write  # type: ignore[attr-defined]
        loop = asyncio.get_running_loop()
        at = loop.time() + 0.02
        await asyncio.sleep(0.02)
        if self.transport.is_closing():
            return
        write(_HEAD + _PIECE)
        for _ in range(PACED - 1):
            at += 0.005
            await asyncio.sleep(max(0, at - loop.time()))
            if self.transport.is_closing():
                return
            write(_PIECE)
        write(_LAST)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(
        Server, "127.0.0.1", int(sys.argv[1]), backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
