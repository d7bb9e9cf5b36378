"""One request and its answer on a connection: what is read of the one, and written of the other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from http import HTTPStatus
from typing import Any, Protocol

from trilith.errors import APIError
from trilith_gateway.direct import Direct
from trilith_gateway.exchange import Exchange, too_large
from trilith_gateway.front import Front
from trilith_gateway.wire.head import readable
from trilith_gateway.wire.route import Found

_log = logging.getLogger(__name__)

_HIGH_BYTES = 64 * 1024
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in list(HTTPStatus) else ''}\r\n"
    for status in range(200, 600)
}


class Line(Protocol):
    """The connection, as far as one request on it knows it."""

    front: Front
    headers: list[tuple[bytes, bytes]]
    expect_100_continue: bool
    ending: bool
    active: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    flow: Any
    tasks: set[asyncio.Task[None]]

    def linger(self) -> None:
        """Close the sending side and throw away what still comes."""
        ...

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest."""
        ...


class ExchangeCycle:
    """One request and its answer: what uvicorn calls a cycle, and what the pipeline calls an outlet."""

    __slots__ = (
        "_begun",
        "_chunked",
        "_direct",
        "_expects",
        "_headers",
        "_id",
        "_limit",
        "_parts",
        "_line",
        "_raw_headers",
        "_size",
        "_task",
        "_waiter",
        "body",
        "disconnected",
        "found",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
        "small",
    )

    def __init__(
        self,
        line: Line,
        found: Found,
        headers: dict[str, str] | None,
        *,
        keep_alive: bool,
        chunked: bool,
    ) -> None:
        self._line = line
        self.found = found
        self._headers = headers
        self._raw_headers = line.headers
        self._expects = line.expect_100_continue
        self._parts: list[bytes] = []
        self._size = 0
        self._limit: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._direct: Direct | None = None
        self._begun = False
        self._id = ""
        self.message_event = _SILENT
        self.keep_alive = keep_alive
        self._chunked = chunked
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.small = False
        """Whether its body is so short that the work waits for it."""

    def begin(self) -> None:
        """Start the work: without a task if the body is there."""
        line = self._line
        line.active = self
        exchange = self._exchange()
        if self.more_body:
            self.go_on(line.front.run(exchange, self))
        else:
            self._direct = direct = line.front.direct(exchange, self)
            direct.start()

    def begin_later(self) -> None:
        """Start the work in a task, lest one pipelined request's answer begin the next within itself."""
        self._line.active = self
        self.go_on(self._line.front.run(self._exchange(), self))

    def _exchange(self) -> Exchange:
        api, path, model = self.found
        if (headers := self._headers) is None:
            headers = readable(self._raw_headers)
        exchange = Exchange(api, path, headers, self._read, model)
        # Not the exchange, which knows us: what refers to itself waits for the collector.
        self._id = exchange.id
        return exchange

    def go_on(self, rest: Coroutine[Any, Any, None]) -> None:
        """Do the rest of the work in a task."""
        self._direct = None
        self._task = task = self._line.loop.create_task(self._run(rest))
        self._line.tasks.add(task)

    async def _run(self, rest: Coroutine[Any, Any, None]) -> None:
        self._begun = True
        line = self._line
        try:
            await rest
        except asyncio.CancelledError:
            if not self.disconnected:
                line.transport.abort()
        except Exception as error:
            self.fail(error)
        finally:
            if self._task is not None:
                line.tasks.discard(self._task)

    def fail(self, error: Exception) -> None:
        """Break the answer off; an `APIError` is one that had no place for the word."""
        self._direct = None
        if not isinstance(error, APIError):
            _log.error("request %s could not be finished", self._id, exc_info=error)
        self._line.transport.abort()

    def leave(self) -> None:
        """The caller has gone: stop the work."""
        self.disconnected = True
        if self._task is not None:
            if self._begun:
                self._task.cancel()
            else:  # what is cancelled before it has begun cannot clean up
                self._line.loop.call_soon(self._task.cancel)
        elif self._direct is not None:
            direct, self._direct = self._direct, None
            direct.leave()

    # The body.
    def whole(self, body: bytes) -> None:
        """Take all of the body."""
        self._parts.append(body)
        self._size = len(body)
        self.more_body = False

    def feed(self, data: bytes) -> None:
        """Take a part of the body."""
        if self.response_complete:
            return
        self._parts.append(data)
        self._size += len(data)
        limit = self._limit
        if limit is not None and self._size > limit:
            self._wake()
        elif limit is None and self._size > _HIGH_BYTES:
            self._line.flow.pause_reading()

    def end(self) -> None:
        """The body is whole."""
        self.more_body = False
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self, most_bytes: int) -> bytes | Awaitable[bytes]:
        if self._size > most_bytes:
            raise too_large(most_bytes)
        if not self.more_body:
            return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        return self._receive(most_bytes)

    async def _receive(self, most_bytes: int) -> bytes:
        self._limit = most_bytes
        if self._expects:
            self._line.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._line.flow.resume_reading()
        self._waiter = self._line.loop.create_future()
        await self._waiter
        if self._size > most_bytes:
            raise too_large(most_bytes)
        return b"".join(self._parts)

    # The answer.
    def send(self, status: int, headers: dict[str, str], body: bytes) -> Awaitable[None] | None:
        """Send a whole answer."""
        head = self._head(status, headers, f"content-length: {len(body)}\r\n")
        if not self.disconnected:
            self._line.transport.write(head + body)
            if self._line.flow.write_paused:  # the next request waits until this answer is read
                return self._drained()
        self._done()
        return None

    async def _drained(self) -> None:
        await self._line.flow.drain()
        self._done()

    def start(self, status: int, headers: dict[str, str]) -> Awaitable[None] | None:
        """Send the head of a stream."""
        framing = "transfer-encoding: chunked\r\n" if self._chunked else ""  # 1.0: until the connection's end
        self._line.transport.write(self._head(status, headers, framing))
        return None

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Send a part of a stream."""
        self._line.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        flow = self._line.flow
        return flow.drain() if flow.write_paused else None

    def finish(self) -> Awaitable[None] | None:
        """End a stream."""
        if self._chunked:
            self._line.transport.write(b"0\r\n\r\n")
        self._done()
        return None

    def _head(self, status: int, headers: dict[str, str], framing: str) -> bytes:
        self.response_started = True
        if self.more_body:  # what is left of the request is not read
            self.keep_alive = False
        lines = [STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if framing:
            lines.append(framing)
        lines.append("\r\n" if self.keep_alive else "connection: close\r\n\r\n")
        text = "".join(lines)
        ends = len(lines) + (not self.keep_alive)
        if text.count("\n") != ends or text.count("\r") != ends:
            raise ValueError("a header of the answer holds a line end")
        return text.encode("latin-1", "replace")

    def _done(self) -> None:
        self.response_complete = True
        self._direct = None  # each knows the other
        if self.more_body:
            self._line.linger()
        elif not self.keep_alive and not self._line.ending:
            self._line.transport.close()
        self._line.on_response_complete()


class _Silent:
    """Stands in for the event that uvicorn sets on a cycle; nobody waits for it here."""

    def set(self) -> None:
        """Do nothing."""


_SILENT = _Silent()
