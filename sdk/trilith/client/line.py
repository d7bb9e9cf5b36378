"""HTTP/1.1 beneath httpx for coroutines: kept connections on asyncio's own transports.

httpx brings a pool that walks through all of its connections for every call and locks through anyio; at
hundreds of calls a second that is most of what a call costs. Whatever a call means (cookies, decompression,
URLs) stays httpx's, and the protocol is h11's, which httpx uses as well. Proxies stay with httpx's own pool.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import h11
import httpx

_IDLE_S = 5.0
"""Longest time that an unused connection is kept (seconds), as httpx does."""
_PIECE = 256 * 1024
"""Bytes that wait to be read before the server is made to wait."""

_RACE: dict[str, Any] = {"happy_eyeballs_delay": 0.25}
"""Try a host's next address after so long (seconds, RFC 8305); uvloop's loops do not take it."""

_Place = tuple[str, str, int]
"""Scheme, host and port."""


class LineTransport(httpx.AsyncBaseTransport):
    """Keeps connections open between calls, those used last first. For one event loop at a time."""

    def __init__(self, limits: httpx.Limits) -> None:
        """Take the most connections there may be, and the most of them that wait unused."""
        self._kept_most = limits.max_keepalive_connections or 0
        self._idle: dict[_Place, list[_Line]] = {}
        self._open: set[_Line] = set()
        self._slots = asyncio.Semaphore(limits.max_connections or 1000)
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; returns when the headers of the answer are there."""
        limits_s = request.extensions.get("timeout", {})
        try:
            async with asyncio.timeout(limits_s.get("pool") if self._slots.locked() else None):
                await self._slots.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use") from None
        line: _Line | None = None
        try:
            line = await self._line(request.url, limits_s.get("connect"))
            await line.send(request, limits_s.get("write"))
            head = await line.head(limits_s.get("read"))
        except BaseException:
            if line:
                line.drop()
            self._slots.release()
            raise
        return httpx.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, line, limits_s.get("read")),
            extensions={"http_version": b"HTTP/" + head.http_version, "reason_phrase": head.reason},
        )

    async def _line(self, url: httpx.URL, timeout_s: float | None) -> _Line:
        place = (url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80))
        kept = self._idle.get(place, [])
        while kept:
            line = kept.pop()
            if line.fresh():
                return line
            line.drop()
        return await self._opened(place, timeout_s)

    async def _opened(self, place: _Place, timeout_s: float | None) -> _Line:
        scheme, host, port = place
        if scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"the scheme is {scheme!r}, expected http or https")
        if scheme == "https" and self._tls is None:
            self._tls = httpx.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                _, line = await loop.create_connection(
                    lambda: _Line(place, self._open),
                    host,
                    port,
                    ssl=self._tls if scheme == "https" else None,
                    **(_RACE if isinstance(loop, asyncio.BaseEventLoop) else {}),
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return line

    def give_back(self, line: _Line) -> None:
        """Keep a connection whose answer is complete; close any other."""
        self._slots.release()
        if not line.again() or sum(map(len, self._idle.values())) >= self._kept_most:
            line.drop()
            return
        self._idle.setdefault(line.place, []).append(line)

    async def aclose(self) -> None:
        """Close all connections, also those with an answer under way."""
        for line in list(self._open):
            line.drop()
        self._idle.clear()


class _Body(httpx.AsyncByteStream):
    """The rest of an answer."""

    def __init__(self, transport: LineTransport, line: _Line, timeout_s: float | None) -> None:
        self._transport, self._timeout_s = transport, timeout_s
        self._line: _Line | None = line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._line and (piece := await self._line.piece(self._timeout_s)):
            yield piece

    async def aclose(self) -> None:
        line, self._line = self._line, None
        if line:
            self._transport.give_back(line)


class _Line(asyncio.Protocol):
    """One connection, which carries one call at a time."""

    def __init__(self, place: _Place, every: set[_Line]) -> None:
        self.place = place
        self._every = every
        self._speech = h11.Connection(h11.CLIENT)
        self._loop = asyncio.get_running_loop()
        self._arrived: list[bytes] = []
        self._size = 0
        self._ended = False
        self._lost: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = self._paused = False
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._every.add(self)
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll:
            self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self._arrived.append(data)
        self._size += len(data)
        if self._size > _PIECE and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> None:
        self._ended = True
        _wake(self._reader)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._lost = True, error
        self._every.discard(self)
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    def fresh(self) -> bool:
        """Whether a kept connection can carry another call: what arrives unasked is the server's farewell."""
        return (
            not self._ended
            and not self._arrived
            and self._loop is asyncio.get_running_loop()
            and time.monotonic() - self._since < _IDLE_S
            and not (self._poll and self._poll.poll(0))
        )

    def again(self) -> bool:
        """Make ready for the next call; False where this one is not complete, or was the last."""
        if self._speech.our_state is not h11.DONE or self._speech.their_state is not h11.DONE:
            return False
        self._speech.start_next_cycle()
        self._since = time.monotonic()
        return not self._ended and not self._arrived and not self._speech.trailing_data[0]

    def drop(self) -> None:
        """Close at once; what a loop that has ended left behind is closed with it."""
        self._every.discard(self)
        if self._loop is asyncio.get_running_loop():
            self._transport.abort()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._transport.abort)

    async def send(self, request: httpx.Request, timeout_s: float | None) -> None:
        """Send head and body, small ones in one packet."""
        try:
            target = request.url.raw_path
            head = h11.Request(method=request.method, target=target, headers=request.headers.raw)
            waiting = self._speech.send(head) or b""
            async for piece in cast(httpx.AsyncByteStream, request.stream):
                waiting += self._speech.send(h11.Data(data=piece)) or b""
                if len(waiting) > _PIECE:
                    await self._write(waiting, timeout_s)
                    waiting = b""
            waiting += self._speech.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        await self._write(waiting, timeout_s)

    async def _write(self, data: bytes, timeout_s: float | None) -> None:
        # A server may answer, and leave, before it has read everything: what it said is read then.
        if not (self._ended or self._transport.is_closing()):
            self._transport.write(data)
        while self._full and not self._ended:
            self._writer = self._loop.create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._writer
            except TimeoutError:
                raise httpx.WriteTimeout("the request could not be sent in time") from None

    async def head(self, timeout_s: float | None) -> h11.Response:
        """Return the answer's head."""
        while True:
            event = await self._event(timeout_s)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.")

    async def piece(self, timeout_s: float | None) -> bytes:
        """Return the next part of the body; nothing after the last."""
        while not isinstance(event := await self._event(timeout_s), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
        return b""

    async def _event(self, timeout_s: float | None) -> Any:
        while True:
            try:
                event = self._speech.next_event()
                if event is not h11.NEED_DATA:
                    return event
                if not self._arrived and not self._ended:
                    await self._more(timeout_s)
                if not self._arrived and self._lost:
                    raise httpx.ReadError(str(self._lost)) from self._lost
                self._speech.receive_data(b"".join(self._arrived))
            except h11.RemoteProtocolError as error:
                raise httpx.RemoteProtocolError(str(error)) from error
            self._arrived.clear()
            self._size = 0
            if self._paused:
                self._paused = False
                self._transport.resume_reading()

    async def _more(self, timeout_s: float | None) -> None:
        self._reader = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._reader
        except TimeoutError:
            raise httpx.ReadTimeout("no part of the answer came in time") from None
        finally:
            self._reader = None


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter and not waiter.done():
        waiter.set_result(None)
