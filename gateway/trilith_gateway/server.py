"""Runs the ASGI application under uvicorn, with signals and draining."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import uvicorn
from fastapi import FastAPI

from trilith.errors import SettingsError
from trilith.settings.server import GatewaySettings
from trilith_gateway import log
from trilith_gateway.wire.limit import WireLimits
from trilith_gateway.wire.protocol import WireProtocol


def listen(settings: GatewaySettings) -> socket.socket:
    """Open the listening socket.

    Raises:
        SettingsError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Set gateway.host (--host) to an address of this machine and gateway.port (--port) to a free port"
        ) from error
    listener.listen(2048)
    return listener


def address(listener: socket.socket) -> str:
    """Return the base URL that the socket answers on."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which ends the process before anything else is cleaned up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `until_signal`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Also close connections that keep the server waiting (ten ticks are a second)."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, WireProtocol):
                    connection.expire(now)
        return await super().on_tick(counter)

    async def _wait_tasks_to_complete(self) -> None:
        try:
            await super()._wait_tasks_to_complete()
        except asyncio.CancelledError:  # time is up; not all requests have a task that uvicorn could cancel
            for connection in list(self.server_state.connections):
                if isinstance(connection, WireProtocol):
                    connection.transport.abort()
            raise


def make(app: FastAPI, settings: GatewaySettings) -> Server:
    """Return a server for `app`; it stops when its `should_exit` is set."""
    limits = WireLimits(
        head_s=settings.head_timeout_s,
        body_s=settings.body_timeout_s,
        write_s=settings.write_timeout_s,
        keep_alive_s=settings.keep_alive_s,
        half_close=settings.half_close,
    )
    protocol = functools.partial(WireProtocol, front=app.state.platform.front, limits=limits)
    config = uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], protocol),
        log_level="warning",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)),
        lifespan="on",
    )
    return Server(config)


async def serve(app: FastAPI, listener: socket.socket, settings: GatewaySettings) -> None:
    """Serve until SIGINT or SIGTERM; open answers get `drain_s` to finish, a second signal ends them.

    `/readyz` says no at once; requests are still taken for `drain_notice_s`, until their senders have heard.
    """
    log.configure(sys.stderr, text=settings.log == "text")
    server = make(app, settings)

    platform = app.state.platform
    loop = asyncio.get_running_loop()

    def leave() -> None:
        server.should_exit = True

    def stop() -> None:
        if platform.draining:
            server.force_exit = True
            leave()
        platform.draining = True
        loop.call_later(settings.drain_notice_s, leave)

    # What is there now stays; the collector need not look at it again and again, and cycles are few.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)

    def reload() -> None:
        if (reloader := getattr(app.state, "reloader", None)) is not None:
            reloader.ask()

    with on_signals(stop), on_signals(reload, (signal.SIGHUP,)):
        await server.serve(sockets=[listener])


@contextlib.contextmanager
def on_signals(
    action: Callable[[], object], numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
    """Run `action` on the running loop for each of these signals within the block."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def run(main: Awaitable[int]) -> int:
    """Run a command's coroutine on uvloop where there is one."""

    async def body() -> int:
        return await main

    try:
        import uvloop
    except ImportError:
        return asyncio.run(body())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(body())
