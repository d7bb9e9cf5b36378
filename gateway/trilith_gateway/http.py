"""Between ASGI and the pipeline: reads the body with a limit, notices callers who leave, sends the answer.

The server's own protocol (`wire`) does the same without ASGI, at a fraction of the cost; this way in serves
the embedded gateway and every other ASGI server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange, too_large
from trilith_gateway.front import Front

_log = logging.getLogger(__name__)


class ExchangeResponse(Response):
    """A response that runs the pipeline while it is being sent."""

    def __init__(self, request: Request, api: Api, front: Front, *, model: str | None = None) -> None:
        self.background = None
        self._front = front
        self._inbox = _Inbox(request.receive)
        headers = {name: value for name, value in request.headers.items()}
        self._exchange = Exchange(api, request.url.path, headers, self._inbox.body, model)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the exchange; when the caller leaves first, cancel it, which aborts the upstream's work."""
        work = asyncio.ensure_future(self._run(_Outlet(send)))
        gone = asyncio.ensure_future(self._inbox.gone())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also reached when the server cancels us. Cancelling a task that is done does nothing.
            gone.cancel()
            if not work.done():
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _run(self, outlet: _Outlet) -> None:
        try:
            await self._front.run(self._exchange, outlet)
        except Exception:
            _log.exception("request %s could not be finished", self._exchange.id)


class _Inbox:
    """What the caller sends: first the body, then perhaps a farewell."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = asyncio.Event()
        self._left = False

    async def body(self, most_bytes: int) -> bytes:
        """Read the whole body.

        Raises:
            APIStatusError: 413, it is longer than `most_bytes`; counted as it comes, whatever was announced.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                self._left = True
                self._read.set()
                await asyncio.Event().wait()  # `gone` returns now, and this task is cancelled
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most_bytes:
                raise too_large(most_bytes)
            if not message.get("more_body", False):
                self._read.set()
                return b"".join(parts)

    async def gone(self) -> None:
        """Return when the caller has left."""
        await self._read.wait()
        while not self._left:
            message = await self._receive()
            self._left = message["type"] == "http.disconnect"


class _Outlet:
    """Sends an answer through ASGI."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        await self._head(status, {**headers, "content-length": str(len(body))})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def start(self, status: int, headers: dict[str, str]) -> None:
        await self._head(status, headers)

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _head(self, status: int, headers: dict[str, str]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
