"""The server's protocol: uvicorn's, with the model calls taken out before any ASGI message is made.

ASGI costs more than all nine stages of a request together: a scope, a receive and a send of dictionaries, an
event, and no way to hear of a caller's leaving but to ask. So the few routes that carry nearly all requests
are answered from here, in the same order and on the same connections as everything else, which stays an
ordinary ASGI application.

Leans on uvicorn's internals: `HttpToolsProtocol.{cycle, pipeline, flow, headers, url, tasks, connections}`
and the part of `RequestResponseCycle` that it uses. tests/gateway/test_wire.py holds it to that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trilith.errors import APIError, APIStatusError
from trilith_gateway import edge, sse
from trilith_gateway.exchange import Exchange, too_large
from trilith_gateway.front import Front
from trilith_gateway.identifier import new_id
from trilith_gateway.wire import route
from trilith_gateway.wire.limit import WireLimits

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_log = logging.getLogger(__name__)

_HIGH_BYTES = 64 * 1024
_LINGER_S = 2.0
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status in list(HTTPStatus) else ''}\r\n"
    for status in range(200, 600)
}


_ANSWER, _HEAD, _BODY, _REST, _GONE = range(5)
"""What a connection waits for. Gone: nothing any more, what still comes is thrown away. (Members of an enum
are looked up five times slower, and this is looked at ten times a request.)"""


class WireProtocol(HttpToolsProtocol):
    """One connection."""

    cycle: Any

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        front: Front,
        limits: WireLimits,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = httptools.HttpRequestParser(self)  # strict: without uvicorn's leniency
        self.front = front
        self.active: ExchangeCycle | None = None
        """The exchange that is being answered."""
        self._limits = limits
        self.url = b""
        self._head_bytes = 0
        self._phase = _HEAD
        self._since = self.loop.time()
        self._unread_since: float | None = None
        """Since when the caller does not read what is written; None: it does."""

    # From the transport.
    def pause_writing(self) -> None:
        """The caller reads more slowly than is written."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._unread_since = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has left: so does its work, in this very tick."""
        active, self.active = self.active, None
        self.pipeline.clear()
        super().connection_lost(exc)
        if active is not None:
            active.leave()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """A caller that sends no more: gone, unless half-closing is allowed and its request is complete."""
        if self._limits.half_close and self._phase == _ANSWER and self.active is not None:
            self.active.keep_alive = False
            return True
        return None

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        while data and self._phase != _GONE:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._declined(data[offer.args[0] :])
            except httptools.HttpParserError:
                self.refuse(400, "The request is not valid HTTP/1.1.")
                return

    def _declined(self, rest: bytes) -> bytes:
        """Decline the offer of another protocol; returns the request as what it is in this one.

        The parser stops after the head of such a request, so it gets the head again, without the offer.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.refuse(400, "This server is no tunnel.")
            return b""
        lines = [b"%b %b HTTP/1.1\r\n" % (method, self.url)]
        lines += [b"%b: %b\r\n" % pair for pair in self.headers if pair[0] not in _OFFER]
        wishes = b",".join(value.lower() for name, value in self.headers if name == b"connection")
        if b"close" in [wish.strip() for wish in wishes.split(b",")]:
            lines.append(b"connection: close\r\n")
        self.parser = httptools.HttpRequestParser(self)
        return b"".join(lines) + b"\r\n" + rest

    # From the parser.
    def on_message_begin(self) -> None:
        """Begin a request, unless the connection is given up: what follows a refusal is never run."""
        if self._phase == _GONE:
            return
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._head_bytes = 0
        if self._phase != _HEAD:
            self._phase = _HEAD
            self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Take (a part of) the target."""
        self.url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        name = name.lower()
        if len(name) == 6 and name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._limits.head_bytes:
            self._count(0)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            self.refuse(431, "The request's head is too large.")

    def on_headers_complete(self) -> None:
        """Take the request, or hand it to ASGI."""
        if self._phase == _GONE or self.parser.should_upgrade():
            return
        if len(self.headers) > self._limits.headers:
            self.refuse(431, "The request has too many headers.")
            return
        self._phase = _BODY
        self._since = self.loop.time()
        if not self.url.startswith(b"/"):
            self.refuse(400, "The request's target is not a path.")
            return
        found = route.find(self.url) if self.parser.get_method() == b"POST" else None
        if found is None:
            self._to_asgi()
            return
        chunked = self.parser.get_http_version() != "1.0"
        keep_alive = chunked and self.parser.should_keep_alive()
        before = self.cycle
        self.cycle = cycle = ExchangeCycle(self, found, keep_alive=keep_alive, chunked=chunked)
        if before is None or before.response_complete:
            cycle.begin()
        else:  # a pipelined request waits for its turn
            self.flow.pause_reading()
            self.pipeline.appendleft((cast(Any, cycle), self.app))

    def _to_asgi(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which only ASGI needs
        self.url, self.expect_100_continue = url, expects
        self.headers = self.scope["headers"] = headers
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._phase == _GONE:
            return
        if type(self.cycle) is ExchangeCycle:
            self.cycle.feed(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._phase == _GONE or self.parser.should_upgrade():
            return
        self._phase = _ANSWER
        if type(self.cycle) is ExchangeCycle:
            self.cycle.end()
        else:
            super().on_message_complete()
        if self.cycle.response_complete:
            self._rest()

    # From the answer.
    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if type(cycle) is ExchangeCycle:
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest."""
        self.active = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self.pipeline:
            self.flow.resume_reading()
            if self._phase == _ANSWER:
                self._rest()
            return
        following = self.pipeline.pop()
        if not self.pipeline:  # before that, more would be read than is answered
            self.flow.resume_reading()
        self._start_asgi_task(*following)

    def _rest(self) -> None:
        self._phase = _REST
        self._since = self.loop.time()

    def expire(self, now: float) -> None:
        """Close a connection that has kept the server waiting for too long; `now` is on the loop's clock."""
        waited = now - self._since
        phase, limits = self._phase, self._limits
        if self._unread_since is not None and now - self._unread_since >= limits.write_s:
            self.transport.abort()  # its work ends with it
        elif phase == _REST and waited >= limits.keep_alive_s and self.transport.get_write_buffer_size():
            self.transport.abort()  # what it has not read in all that time would keep the connection
        elif (phase == _REST and waited >= limits.keep_alive_s) or (
            phase == _HEAD and not self.url and waited >= limits.head_s
        ):
            self.transport.close()
        elif phase == _HEAD and waited >= limits.head_s:
            self.refuse(408, "The request's head did not come in time.")
        elif phase == _BODY and waited >= limits.body_s:
            self.refuse(408, "The request's body did not come in time.")
        elif phase == _GONE and waited >= _LINGER_S:
            self.transport.abort()

    def refuse(self, status: int, message: str) -> None:
        """Answer a request that cannot be read, and close: what follows cannot be trusted."""
        if self._phase == _GONE:
            return
        cycle = self.cycle
        if self.active is not None and self.active.response_started:
            self.transport.abort()  # no word of ours fits into what another request is being answered
            return
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = cycle.response_complete = True  # what it would still say is not sent
        if self.active is not None:
            self.active.leave()
            self.active = None
        self.pipeline.clear()
        error = APIStatusError(message, status_code=status, code="bad_request", type="invalid_request_error")
        body = sse.dump(edge.told(self.url.decode("latin-1"), error))
        head = f"{_STATUS_LINES[status]}content-type: application/json\r\nconnection: close\r\n"
        head += f"x-request-id: {new_id(time.time_ns())}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.linger()

    def linger(self) -> None:
        """Close the sending side and throw away what still comes: a reset would overtake the answer."""
        self._phase = _GONE
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


class ExchangeCycle:
    """One request and its answer: what uvicorn calls a cycle, and what the pipeline calls an outlet."""

    __slots__ = (
        "_begun",
        "_chunked",
        "_expects",
        "_exchange_headers",
        "_found",
        "_limit",
        "_parts",
        "_protocol",
        "_size",
        "_task",
        "_waiter",
        "body",
        "disconnected",
        "keep_alive",
        "message_event",
        "more_body",
        "response_complete",
        "response_started",
    )

    def __init__(
        self, protocol: WireProtocol, found: route.Found, *, keep_alive: bool, chunked: bool
    ) -> None:
        self._protocol = protocol
        self._found = found
        self._exchange_headers = protocol.headers
        self._expects = protocol.expect_100_continue
        self._parts: list[bytes] = []
        self._size = 0
        self._limit: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self.message_event = _SILENT
        self.keep_alive = keep_alive
        self._chunked = chunked
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def begin(self) -> None:
        """Start the work."""
        protocol = self._protocol
        protocol.active = self
        self._task = task = protocol.loop.create_task(self._run())
        protocol.tasks.add(task)

    async def _run(self) -> None:
        self._begun = True
        protocol = self._protocol
        api, path, model = self._found
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._exchange_headers}
        exchange = Exchange(api, path, headers, self._read, model)
        try:
            await protocol.front.run(exchange, self)
        except asyncio.CancelledError:
            if not self.disconnected:
                protocol.transport.abort()
        except APIError:  # within an answer that has no place for the word
            protocol.transport.abort()
        except Exception:
            _log.exception("request %s could not be finished", exchange.id)
            protocol.transport.abort()
        finally:
            if self._task is not None:
                protocol.tasks.discard(self._task)

    def leave(self) -> None:
        """The caller has gone: stop the work."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()
            if not self._begun:  # and so never will
                self._protocol.tasks.discard(self._task)

    # The body.
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
            self._protocol.flow.pause_reading()

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
            self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._protocol.flow.resume_reading()
        self._waiter = self._protocol.loop.create_future()
        await self._waiter
        if self._size > most_bytes:
            raise too_large(most_bytes)
        return b"".join(self._parts)

    # The answer.
    def send(self, status: int, headers: dict[str, str], body: bytes) -> Awaitable[None] | None:
        """Send a whole answer."""
        head = self._head(status, headers, f"content-length: {len(body)}\r\n")
        if not self.disconnected:
            self._protocol.transport.write(head + body)
            if self._protocol.flow.write_paused:  # the next request waits until this answer is read
                return self._drained()
        self._done()
        return None

    async def _drained(self) -> None:
        await self._protocol.flow.drain()
        self._done()

    def start(self, status: int, headers: dict[str, str]) -> Awaitable[None] | None:
        """Send the head of a stream."""
        framing = "transfer-encoding: chunked\r\n" if self._chunked else ""  # 1.0: until the connection's end
        self._protocol.transport.write(self._head(status, headers, framing))
        return None

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Send a part of a stream."""
        self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)
        flow = self._protocol.flow
        return flow.drain() if flow.write_paused else None

    def finish(self) -> Awaitable[None] | None:
        """End a stream."""
        if self._chunked:
            self._protocol.transport.write(b"0\r\n\r\n")
        self._done()
        return None

    def _head(self, status: int, headers: dict[str, str], framing: str) -> bytes:
        self.response_started = True
        if self.more_body:  # what is left of the request is not read
            self.keep_alive = False
        lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"]
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
        if self.more_body:
            self._protocol.linger()
        elif not self.keep_alive:
            self._protocol.transport.close()
        self._protocol.on_response_complete()


class _Silent:
    """Stands in for the event that uvicorn sets on a cycle; nobody waits for it here."""

    def set(self) -> None:
        """Do nothing."""


_SILENT = _Silent()
