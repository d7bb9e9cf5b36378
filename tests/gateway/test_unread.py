"""Callers that send more than they read: what they make the server hold is bounded, in size and in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from trilith_gateway.front import Front
from trilith_gateway.wire.limit import WireLimits
from trilith_gateway.wire.protocol import WireProtocol

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
BODY = b"x" * 100
LARGE = b"x" * 200_000


class Answering:
    """Stands where the nine stages are, and answers when it may."""

    def __init__(self, body: bytes = BODY, *, held: bool = False) -> None:
        self.body = body
        self.may = asyncio.Event()
        if not held:
            self.may.set()
        self.begun = self.done = self.cancelled = 0

    def direct(self, exchange: Any, way: Any) -> Any:
        """Want a task in any case."""
        return SimpleNamespace(start=lambda: way.go_on(self.run(exchange, way)))

    async def run(self, exchange: Any, outlet: Any) -> None:
        self.begun += 1
        try:
            await self.may.wait()
            if (wait := outlet.send(200, {}, self.body)) is not None:
                await wait
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.done += 1


@contextlib.asynccontextmanager
async def connected(front: Answering) -> AsyncIterator[tuple[socket.socket, Callable[[], WireProtocol]]]:
    """One connection to a server, and the protocol at its other end."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nothing here is for it")

    config = uvicorn.Config(application, log_level="critical")
    config.load()
    made: list[WireProtocol] = []

    def protocol() -> WireProtocol:
        one = WireProtocol(config, ServerState(), {}, front=cast(Front, front), limits=WireLimits())
        made.append(one)
        return one

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        with socket.create_connection(server.sockets[0].getsockname()) as caller:
            caller.setblocking(False)
            yield caller, lambda: made[0]


async def sent(caller: socket.socket, count: int) -> None:
    """Send as many requests as the other end takes, at most `count`."""
    left = REQUEST * count
    quiet = 0
    while left and quiet < 50:
        try:
            left = left[caller.send(left) :]
            quiet = 0
        except BlockingIOError:
            quiet += 1
        await asyncio.sleep(0.001)


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_a_caller_that_pipelines_is_read_no_further_than_one_read_ahead() -> None:
    front = Answering(held=True)
    async with connected(front) as (caller, protocol):
        await sent(caller, 30_000)
        assert front.begun == 1
        assert len(protocol().pipeline) < 300_000 // len(REQUEST)  # one read of asyncio's
        front.may.set()
        received = 0
        while received < 200 * len(BODY):  # and all go on when the first is answered
            received += len(await asyncio.get_running_loop().sock_recv(caller, 65536))
        assert len(protocol().pipeline) < 300_000 // len(REQUEST)


async def test_a_caller_that_does_not_read_is_not_answered_further() -> None:
    front = Answering(LARGE)
    async with connected(front) as (caller, protocol):
        await sent(caller, 1000)
        await until(lambda: protocol().flow.write_paused)
        assert protocol().transport.get_write_buffer_size() < 2 * len(LARGE)
        before = front.done
        await asyncio.sleep(0.05)
        assert front.done == before


async def test_what_is_not_read_in_time_ends_with_its_connection_and_its_work() -> None:
    front = Answering(LARGE)
    async with connected(front) as (caller, protocol):
        await sent(caller, 1000)
        await until(lambda: protocol().flow.write_paused)
        now = asyncio.get_running_loop().time()
        protocol().expire(now + 60)
        await asyncio.sleep(0)
        assert not protocol().transport.is_closing()
        protocol().expire(now + 1000)
        for _ in range(3):
            await asyncio.sleep(0)
        assert protocol().transport.is_closing()
        assert front.cancelled == 1
        assert front.begun == front.done + 1
