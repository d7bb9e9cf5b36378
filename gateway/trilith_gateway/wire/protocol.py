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
import time
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trilith.errors import APIStatusError
from trilith_gateway import edge, sse
from trilith_gateway.front import Front
from trilith_gateway.identifier import new_id
from trilith_gateway.wire import route
from trilith_gateway.wire.cycle import STATUS_LINES, ExchangeCycle
from trilith_gateway.wire.head import KnownHead, known_head, small
from trilith_gateway.wire.limit import WireLimits

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_SMALL_BYTES = 64 * 1024
_LINGER_S = 2.0
_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


_ANSWER, _HEAD, _BODY, _REST, _GONE, _FRESH = range(6)
"""What a connection waits for. Fresh: its first request. Gone: nothing any more, what still comes is thrown
away. (Members of an enum are looked up five times slower, and this is looked at ten times a request.)"""

_BETWEEN = (_REST, _FRESH)


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
        self._known: KnownHead | None = None
        self._heads = self._hits = 0
        """How many heads were remembered, and how often one came again."""
        self._due: ExchangeCycle | None = None
        """The exchange that is to begin when all that has come is read, and its body, if that is small."""
        self.ending = False
        """Nothing more is read, and when all that came before is answered, the connection ends."""
        self._last = b""
        """What is written then."""
        self._left = 0
        """What is still to come of the body of a request that the parser knows nothing of (bytes)."""
        self._limits = limits
        self.url = b""
        self._head_bytes = 0
        self._phase = _FRESH
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
        phase = self._phase
        if phase == _GONE:
            return
        if self._left:
            self._fill(data)
            return
        if phase == _REST and self._known is not None and self._again(self._known, data):
            return
        self._parse(data)
        due = self._due
        if due is None:
            return
        if phase in _BETWEEN and self.cycle is due and self._phase != _GONE:
            self._remember(due, data)
        if not (due.more_body and due.small):
            self._due = None
            due.begin()

    def _parse(self, data: bytes) -> None:
        while data and self._phase != _GONE:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._declined(data[offer.args[0] :])
            except httptools.HttpParserError:
                self.refuse(400, "The request is not valid HTTP/1.1.")
                return

    def _again(self, known: KnownHead, data: bytes) -> bool:
        """Take a request whose head came before; False when it is not one, or more than one."""
        if (found := known.read(data)) is None:
            return False
        start, length = found
        left = length - (len(data) - start)
        if left < 0 or (left and length > _SMALL_BYTES):
            return False
        self._hits += 1
        self.url = known.url
        self.cycle = cycle = ExchangeCycle(self, known.found, known.headers, keep_alive=True, chunked=True)
        if left:
            self._left, self._due = left, cycle
            self._phase = _BODY
            self._since = self.loop.time()
            cycle.feed(data[start:])
        else:
            self._phase = _ANSWER
            cycle.whole(data[start:])
            cycle.begin()
        return True

    def _fill(self, data: bytes) -> None:
        """Take more of the body of a request whose head came before."""
        due, left = self._due, self._left
        if due is None:
            raise RuntimeError("no body is waited for")
        due.feed(data[:left])
        self._left = max(0, left - len(data))
        if self._left:
            return
        self._due = None
        self._phase = _ANSWER
        due.end()
        due.begin()
        if len(data) > left:
            self.data_received(data[left:])

    def _remember(self, cycle: ExchangeCycle, data: bytes) -> None:
        """Know the head again, unless this caller's are always others."""
        if self._heads <= self._hits + 4 and cycle.keep_alive:
            self._heads += 1
            self._known = known_head(data, self.url, cycle.found, self.headers)

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
        if self._phase != _FRESH:
            self._since = self.loop.time()
        self._phase = _HEAD

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
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self.refuse(400, f"HTTP/{version} is not spoken here, expected HTTP/1.1.")
            return
        found = route.find(self.url) if self.parser.get_method() == b"POST" else None
        if found is None:
            self._to_asgi()
            return
        chunked = version != "1.0"
        keep_alive = chunked and self.parser.should_keep_alive()
        before = self.cycle
        self.cycle = cycle = ExchangeCycle(self, found, None, keep_alive=keep_alive, chunked=chunked)
        cycle.small = not self.expect_100_continue and small(self.headers, _SMALL_BYTES)
        if before is None or before.response_complete:
            self._due = cycle  # begins when all that came is read: its body may be there
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
            cycle.begin_later()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest."""
        self.active = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.ending and not self.pipeline:
            self.transport.write(self._last)
            self.linger()
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
            phase == _FRESH and waited >= limits.head_s
        ):
            self.transport.close()
        elif phase == _HEAD and waited >= limits.head_s:
            self.refuse(408, "The request's head did not come in time.")
        elif phase == _BODY and waited >= limits.body_s:
            self.refuse(408, "The request's body did not come in time.")
        elif phase == _GONE and waited >= _LINGER_S and not self.ending:
            self.transport.abort()

    def refuse(self, status: int, message: str) -> None:
        """Answer a request that cannot be read, and close: what follows cannot be trusted.

        What came whole before it is answered first: so the same requests are run however the bytes were cut
        on their way.
        """
        if self._phase == _GONE:
            return
        in_body = self._phase == _BODY
        if in_body and self.pipeline:
            self.pipeline.popleft()  # the newest, which this is about
            self._end(self._refusal(status, message))
        elif not in_body and self.cycle is not None and not self.cycle.response_complete:
            self._end(self._refusal(status, message) if self.cycle.keep_alive else b"")
        elif in_body and not self._taken_back(self.cycle):
            self.transport.abort()  # no word of ours fits into what it is being answered
        else:
            self._due = None
            self.transport.write(self._refusal(status, message))
            self.linger()

    def _refusal(self, status: int, message: str) -> bytes:
        error = APIStatusError(message, status_code=status, code="bad_request", type="invalid_request_error")
        body = sse.dump(edge.told(self.url.decode("latin-1"), error))
        head = f"{STATUS_LINES[status]}content-type: application/json\r\nconnection: close\r\n"
        head += f"x-request-id: {new_id(time.time_ns())}\r\ncontent-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _end(self, last: bytes) -> None:
        """Read no more; after the last answer, `on_response_complete` writes these bytes and hangs up."""
        self.ending, self._last = True, last
        self._phase = _GONE
        self._since = self.loop.time()

    def _taken_back(self, cycle: Any) -> bool:
        """Stop the work for a request that is not answered yet; false when its answer has begun."""
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started:
                return False
            cycle.disconnected = cycle.response_complete = True  # what it would still say is not sent
        active, self.active = self.active, None
        if active is not None:
            active.leave()
        return True

    def linger(self) -> None:
        """Close the sending side and throw away what still comes: a reset would overtake the answer."""
        self.ending = False
        self._phase = _GONE
        self._since = self.loop.time()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
