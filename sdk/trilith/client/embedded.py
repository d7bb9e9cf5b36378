"""A gateway inside this process: its event loop, and the wires that carry requests to it.

The gateway itself lives on a higher floor and is found by entry point. Its application runs on a loop in a
thread of its own, so that plain code and coroutines of any other loop call it alike, and answers arrive
piece by piece, as over a socket.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import unquote

from trilith.client.wire import Request
from trilith.errors import APIConnectionError, APITimeoutError, MissingExtra

_log = logging.getLogger(__name__)

GROUP = "trilith.embedded"
"""Entry-point group; the name `gateway` in it is a callable that takes a settings path."""

Message: TypeAlias = MutableMapping[str, Any]
AsgiApp: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
"""An ASGI 3 application."""

_AHEAD = 16
"""How many parts of an answer the application may send before its reader has taken them."""

_GRACE_S = 10.0
"""How long requests may take to notice that the gateway closes (seconds)."""


class Embedded(Protocol):
    """A gateway that can be run in this process. Everything but `api_key` is used on the room's loop."""

    @property
    def app(self) -> AsgiApp:
        """The application; its lifespan is the gateway's own affair."""
        ...

    @property
    def api_key(self) -> str:
        """A key that lives as long as the client."""
        ...

    async def startup(self) -> None:
        """Start all that the application needs; on failure, stop what was started."""
        ...

    async def shutdown(self) -> None:
        """Stop it again."""
        ...


def open_gateway(settings: str | Path | None) -> Embedded:
    """Make the gateway for a settings file; nothing is started yet.

    Raises:
        MissingExtra: the gateway is not installed.
    """
    cure = "the embedded gateway comes with: pip install 'trilith[gateway]'"
    for point in entry_points(group=GROUP, name="gateway"):
        try:
            make = point.load()
        except ModuleNotFoundError as error:
            raise MissingExtra(f"{error.name} is not installed; {cure}") from error
        return cast(Embedded, make(settings))
    raise MissingExtra(f"no gateway is installed; {cure}")


class Room:
    """An embedded gateway with its event loop and thread; starts at once, in the background."""

    def __init__(self, gateway: Embedded) -> None:
        self.api_key = gateway.api_key
        self._gateway = gateway
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._passages: dict[Passage, asyncio.Task[None]] = {}
        self._started: Future[None] = Future()
        self._ended: Future[None] = Future()
        for future in (self._started, self._ended):
            future.set_running_or_notify_cancel()  # those who wait for it cannot cancel it
        # A daemon, so that a forgotten `close` does not keep the process; see `_at_exit` for its end.
        self._thread = threading.Thread(target=self._run, name="trilith-embedded", daemon=True)
        self._thread.start()
        _at_exit(self)

    def wait(self) -> None:
        """Return when the gateway has started, or raise why it did not."""
        try:
            self._started.result()
        except BaseException:
            self.stop()
            raise

    async def wait_async(self) -> None:
        """Do what `wait` does, from a coroutine of another loop."""
        if not (self._started.done() and self._started.exception() is None):
            await asyncio.wrap_future(self._started)

    def stop(self) -> None:
        """End every request, shut the gateway down, and end the thread; again does nothing."""
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._ended.result()

    def enter(self, request: Request) -> Passage:
        """Hand a request to the application."""
        passage = Passage(request)
        self._call(self._begin, passage)
        return passage

    def next(self, passage: Passage) -> Future[Message | None]:
        """Wait for the next part of an answer; None when it broke off."""
        waiting = passage.next()
        try:
            return asyncio.run_coroutine_threadsafe(waiting, self._loop)
        except RuntimeError as error:
            waiting.close()
            raise _closed() from error

    def leave(self, passage: Passage) -> None:
        """Let the application know that its caller has left."""
        with suppress(APIConnectionError):  # it has gone before us
            self._call(passage.leave)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as error:
            raise _closed() from error

    def _begin(self, passage: Passage) -> None:
        if self._stopping.is_set():
            passage.break_off()
            return
        # With a fresh context: only what the request's headers say (its traceparent) may cross.
        task = self._loop.create_task(passage.run(self._gateway.app), context=contextvars.Context())
        self._passages[passage] = task
        task.add_done_callback(lambda _: self._passages.pop(passage, None))

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live())
        except BaseException as error:  # handed to whoever stops the room
            self._ended.set_exception(error)
            if not self._started.done():
                self._started.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _live(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        starting = asyncio.create_task(self._gateway.startup())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled():
            self._started.set_exception(_closed())
        elif (error := starting.exception()) is not None:
            self._started.set_exception(error)
        else:
            self._started.set_result(None)
            await stopping
            await self._clear()
            await self._gateway.shutdown()

    async def _clear(self) -> None:
        for passage in list(self._passages):
            passage.break_off()
        if tasks := list(self._passages.values()):
            _, late = await asyncio.wait(tasks, timeout=_GRACE_S)
            for task in late:
                task.cancel()


class Passage:
    """One request's way through the application; lives on the room's loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._parts: asyncio.Queue[Message | None] = asyncio.Queue()
        self._room_ahead = asyncio.Semaphore(_AHEAD)
        self._left = asyncio.Event()
        self._given = False
        self._begun = False
        self._complete = False

    async def run(self, app: AsgiApp) -> None:
        """Run the application for this request."""
        try:
            await app(_scope(self._request), self._receive, self._send)
        except Exception as error:  # any server answers 500 to that, or breaks off
            _log.error("the embedded gateway failed: %s", type(error).__name__, exc_info=error)
            if not self._begun:
                await self._send({"type": "http.response.start", "status": 500, "headers": []})
                await self._send({"type": "http.response.body", "body": b"Internal Server Error"})
        finally:
            if not self._complete:
                self._parts.put_nowait(None)

    async def next(self) -> Message | None:
        """Return the next part that the application has sent; None when it broke off."""
        part = await self._parts.get()
        self._room_ahead.release()
        return part

    def leave(self) -> None:
        """Let the application see its caller leave; what it still sends goes nowhere."""
        self._left.set()
        for _ in range(_AHEAD):
            self._room_ahead.release()

    def break_off(self) -> None:
        """End the answer where it stands."""
        if not self._complete:
            self._parts.put_nowait(None)
        self.leave()

    async def _receive(self) -> Message:
        if not self._given:
            self._given = True
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] not in ("http.response.start", "http.response.body"):
            return
        if not self._left.is_set():
            await self._room_ahead.acquire()
        if self._left.is_set():
            return
        self._begun = True
        self._complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._parts.put_nowait(message)
        if self._complete:
            self._left.set()  # as servers do: after a complete answer, `receive` says disconnect


class EmbeddedReply:
    """An answer that is still arriving from the loop."""

    def __init__(self, start: Message, take: Callable[[], Message], leave: Callable[[], None]) -> None:
        self.status = int(start["status"])
        self.headers = _headers(start)
        self._take = take
        self.close = leave

    def chunks(self) -> Iterator[bytes]:
        """Yield the parts of the body as the application sends them."""
        more = True
        while more:
            part = self._take()
            more = part.get("more_body", False)
            if body := part.get("body"):
                yield body


class AsyncEmbeddedReply:
    """An answer that is still arriving from the loop."""

    def __init__(
        self, start: Message, take: Callable[[], Awaitable[Message]], leave: Callable[[], None]
    ) -> None:
        self.status = int(start["status"])
        self.headers = _headers(start)
        self._take = take
        self._leave = leave

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body as the application sends them."""
        more = True
        while more:
            part = await self._take()
            more = part.get("more_body", False)
            if body := part.get("body"):
                yield body

    async def aclose(self) -> None:
        """Let the application see its caller leave, if the answer is not complete."""
        self._leave()


class EmbeddedWire:
    """Carries requests from plain code to a room, and closes the room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def send(self, request: Request) -> EmbeddedReply:
        """Send one request; returns when the headers are there."""
        self._room.wait()
        passage = self._room.enter(request)

        def take() -> Message:
            part = self._room.next(passage)
            try:
                return _whole(part.result(request.timeout_s))
            except TimeoutError as error:
                part.cancel()
                raise _late(request) from error
            except CancelledError as error:
                raise _closed() from error

        def leave() -> None:
            self._room.leave(passage)

        try:
            return EmbeddedReply(take(), take, leave)
        except BaseException:
            leave()
            raise

    def close(self) -> None:
        """Shut the gateway down."""
        self._room.stop()


class AsyncEmbeddedWire:
    """Carries requests from coroutines of any loop to a room, and closes the room."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def send(self, request: Request) -> AsyncEmbeddedReply:
        """Send one request; returns when the headers are there."""
        await self._room.wait_async()
        passage = self._room.enter(request)

        async def take() -> Message:
            try:
                async with asyncio.timeout(request.timeout_s):
                    return _whole(await asyncio.wrap_future(self._room.next(passage)))
            except TimeoutError as error:
                raise _late(request) from error

        def leave() -> None:
            self._room.leave(passage)

        try:
            return AsyncEmbeddedReply(await take(), take, leave)
        except BaseException:
            leave()
            raise

    async def aclose(self) -> None:
        """Shut the gateway down."""
        await asyncio.to_thread(self._room.stop)


def _scope(request: Request) -> dict[str, Any]:
    path = unquote(request.path)
    headers = {"host": "embedded", "content-length": str(len(request.body)), **request.headers}
    return {
        "type": "http",
        # 2.3: the application listens for `http.disconnect` itself, as under uvicorn.
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": path,
        "raw_path": request.path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
        "client": ("embedded", 0),
        "server": ("embedded", 0),
    }


def _headers(start: Message) -> Mapping[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}


def _whole(part: Message | None) -> Message:
    if part is None:
        raise APIConnectionError("the embedded gateway broke off its answer")
    return part


def _late(request: Request) -> APITimeoutError:
    return APITimeoutError(
        f"the embedded gateway sent nothing for {request.timeout_s:g} s; timeout_s sets the longest wait"
    )


def _closed() -> APIConnectionError:
    return APIConnectionError("the embedded gateway is closed; open another client")


def _at_exit(room: Room) -> None:
    """Shut a forgotten room down when the program ends.

    `atexit` would be too late: by then no pool of threads takes work, and a gateway needs one to close its
    store. The pools register their own end in the same private way; last come, first served.
    """
    import concurrent.futures.thread  # noqa: F401  # so that its end is registered before ours

    found = weakref.ref(room)

    def stop() -> None:
        if (forgotten := found()) is not None:
            forgotten.stop()

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(stop)
