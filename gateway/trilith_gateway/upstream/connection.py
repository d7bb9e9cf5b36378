"""One HTTP/1.1 connection to an upstream: sends a request, and hands the answer's bytes on as read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

import httptools

from trilith.errors import APIConnectionError, APIError, APITimeoutError

_HIGH_BYTES = 256 * 1024
"""With so much unread, reading stops until the caller has caught up."""
_MOST_HEAD_BYTES = 64 * 1024


class ClosedEarly(APIConnectionError):
    """The upstream closed the connection before a byte of its answer."""


class HttpReply:
    """An answer whose body is still arriving."""

    __slots__ = (
        "_complete",
        "_connection",
        "_failure",
        "_parts",
        "_size",
        "_waiter",
        "deadline",
        "headers",
        "idle_s",
        "listener",
        "quiet_since",
        "status",
    )

    def __init__(self, connection: Connection, deadline: float, idle_s: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.deadline = deadline
        """On the loop's clock: when the whole answer must be there."""
        self.idle_s = idle_s
        self.quiet_since = 0.0
        """On the loop's clock: when the upstream was last heard; 0 while nobody waits for it."""
        self._connection: Connection | None = connection
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._complete = False
        self._failure: APIError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.listener: Callable[[], None] | None = None
        """Called once, when something has happened; see `listen`."""

    def chunks(self) -> HttpReply:
        """Yield the body as it is read from the socket."""
        return self

    def __aiter__(self) -> HttpReply:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._complete:
                raise StopAsyncIteration
            if self._failure is not None:
                raise self._failure
            await self.wait()
        if len(self._parts) == 1:
            data = self._parts.popleft()
        else:
            data = b"".join(self._parts)
            self._parts.clear()
        if self._size > _HIGH_BYTES and self._connection is not None:
            self._connection.resume()
        self._size = 0
        return data

    async def head(self) -> None:
        """Return when status and headers are there.

        Raises:
            APIConnectionError: they will not come.
        """
        while not self.status:
            connection = self._connection
            if self._failure is not None or connection is None:
                raise self._failure or ClosedEarly("the connection was closed before an answer came")
            self._waiter = waiter = connection.loop.create_future()  # `wait`, without a coroutine of its own
            self.quiet_since = connection.loop.time()
            try:
                await waiter
            finally:
                self._waiter = None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when something has happened: what waits so needs no task of its own."""
        self.listener = listener
        if self._connection is not None:
            self.quiet_since = self._connection.loop.time()

    def whole(self) -> bytes | None:
        """Return the rest of the body if all of it is there, else None."""
        if not self._complete:
            return None
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    async def wait(self) -> None:
        """Return when something has happened."""
        connection = self._connection
        if connection is None:
            return
        self._waiter = connection.loop.create_future()
        self.quiet_since = connection.loop.time()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def aclose(self) -> None:
        """Close the connection if the answer is not complete, so that the upstream stops; else it is kept."""
        self.abort()

    def abort(self) -> None:
        """Give the answer up at once."""
        self.listener = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def take(self, data: bytes) -> None:
        """Add a part of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > _HIGH_BYTES and self._connection is not None:
            self._connection.pause()

    def wake(self) -> None:
        """Tell whoever waits."""
        waiter, listener = self._waiter, self.listener
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if listener is not None:
            self.listener = None
            listener()

    def complete(self) -> None:
        """The body is whole."""
        self._complete = True
        self._connection = None
        self.wake()

    def fail(self, error: APIError) -> None:
        """Nothing more will come."""
        if self._failure is None and not self._complete:
            self._failure = error
        self._connection = None
        self.wake()

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for the upstream."""
        return self._waiter is not None or self.listener is not None

    @property
    def bounded(self) -> bool:
        """Whether it is still coming, and so little of it is here that nobody need read it now."""
        return self._failure is None and self._connection is not None and self._size <= _HIGH_BYTES

    @property
    def untouched(self) -> bool:
        """Whether not a byte of it has come."""
        return not self.status and not self._parts


class Pool(Protocol):
    """Where a connection rests between two requests."""

    def give_back(self, connection: Connection, *, keep: bool) -> None:
        """Take a connection whose answer is complete."""

    def forget(self, connection: Connection) -> None:
        """Drop a connection that is closed."""


class Connection(asyncio.Protocol):
    """Carries one request at a time; between two it rests in its pool."""

    __slots__ = (
        "_body",
        "_close_delimited",
        "_head_bytes",
        "_keep",
        "_parser",
        "_paused",
        "_reply",
        "_whole",
        "idle_since",
        "loop",
        "on_body",
        "pool",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.idle_since = 0.0
        self.used = False
        """Whether it has carried a request before."""
        self._body: list[bytes] = []
        self.on_body = self._body.append
        """What the parser calls with each part of a body: a list's own method, because a stream's read has
        hundreds of parts, which are handed on together."""
        self._parser = httptools.HttpResponseParser(self)
        self._reply: HttpReply | None = None
        self._paused = False
        self._head_bytes = 0
        self._close_delimited = True
        self._whole = False
        self._keep = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = transport  # type: ignore[assignment]  # a stream's transport reads and writes

    def send(self, head: bytes, body: bytes, *, deadline: float, idle_s: float) -> HttpReply:
        """Send a request and return the answer, of which nothing is there yet."""
        reply = self._reply = HttpReply(self, deadline, idle_s)
        self._head_bytes = 0
        self._close_delimited = True
        self._whole = False
        if len(body) < 16 * 1024:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        return reply

    def data_received(self, data: bytes) -> None:
        """Parse, and wake whoever waits for it, once per read."""
        reply = self._reply
        if reply is None:  # an upstream that talks unasked is not to be trusted with the next request
            self.transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _HeadTooLong) as error:
            self._fail(APIConnectionError(f"its answer is not HTTP ({type(error).__name__})"))
            self.transport.abort()
            return
        if body := self._body:
            reply.take(body[0] if len(body) == 1 else b"".join(body))
            body.clear()
        if self._whole:
            self._finish(reply)
        else:
            reply.quiet_since = self.loop.time()
            reply.wake()

    def on_message_begin(self) -> None:
        """Refuse a second answer to one request."""
        if self._whole:
            raise _HeadTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MOST_HEAD_BYTES:
            raise _HeadTooLong
        reply = self._reply
        if reply is not None:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            if key in _FRAMING:
                self._close_delimited = False
            reply.headers[key] = text

    def on_headers_complete(self) -> None:
        """Let the head be seen, unless it is an interim one (1xx)."""
        reply = self._reply
        if reply is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            reply.headers.clear()
        else:
            if status in (204, 304):
                self._close_delimited = False
            reply.status = status

    def on_message_complete(self) -> None:
        """Note the end; an interim answer's end is none."""
        if self._reply is not None and self._reply.status:
            self._whole = True
            self._keep = not self._close_delimited and self._parser.should_keep_alive()

    def _finish(self, reply: HttpReply) -> None:
        self._reply = None
        if self._paused:
            self.resume()
        self.pool.give_back(self, keep=self._keep)
        reply.complete()

    def eof_received(self) -> None:
        """Let the transport close itself."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the answer: properly, if it was to last until the connection's end; else as broken."""
        reply = self._reply
        self._reply = None
        self.pool.forget(self)
        if reply is None:
            return
        if error is None and reply.status and self._close_delimited:
            reply.complete()
        elif reply.untouched:
            reply.fail(ClosedEarly("the connection was closed before an answer came"))
        else:
            reply.fail(APIConnectionError("it broke off its answer"))

    def _fail(self, error: APIError) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.fail(error)

    def expire(self, now: float) -> None:
        """Give up on an answer that is overdue at `now` (the loop's clock)."""
        reply = self._reply
        if reply is None:
            return
        if now >= reply.deadline:
            self._fail(APITimeoutError("it did not answer in time"))
        elif reply.waiting and now - reply.quiet_since >= reply.idle_s:
            self._fail(APITimeoutError(f"it was silent for {reply.idle_s:.0f} s within its answer"))
        else:
            return
        self.transport.abort()

    def pause(self) -> None:
        """Stop reading: the caller is slower than the upstream."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def abort(self) -> None:
        """Close without ceremony; the upstream sees it at once."""
        self._reply = None
        self.transport.abort()


class _HeadTooLong(Exception):
    """The answer's head is longer than is read, or there are two of them."""


_FRAMING = frozenset({"content-length", "transfer-encoding"})
