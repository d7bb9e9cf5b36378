"""`trilith up`: the whole platform on one machine: engines, gateway, and the first commands to try."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Coroutine
from socket import socket
from typing import TYPE_CHECKING

from trilith.settings.schema import Settings
from trilith.types import Kind
from trilith_gateway.commands.option import add_address, add_settings, load, read_settings

if TYPE_CHECKING:
    from trilith_gateway.reload import Source


class Up:
    """Run everything."""

    help = "start the engines and the gateway, and show the first commands to try"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        add_address(parser)
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Serve until Ctrl-C or SIGTERM; leaves no process behind."""
        loaded = load(arguments)

        from trilith_gateway import server
        from trilith_gateway.reload import Source

        with server.listen(loaded.settings.gateway) as listener:
            source = Source(loaded.path, lambda: read_settings(arguments))
            return server.run(_up(loaded.settings, listener, source))


async def _up(settings: Settings, listener: socket, source: Source) -> int:
    from trilith_gateway import server
    from trilith_gateway.app import create_app
    from trilith_gateway.engines import Engines

    engines = Engines(settings, settings.home)
    urls = {name: engines.url(name) for name in settings.engines}
    app = create_app(settings, urls, source=source)
    started = time.monotonic()
    _say(f"starting {', '.join(settings.engines) or 'no engine'} (logs in {settings.home / 'logs'})")
    try:
        if not await _unless_stopped(engines.start_all()):
            return 130
        _say(f"engines ready after {time.monotonic() - started:.0f} s")
        print(_welcome(settings, server.address(listener)), flush=True)
        await server.serve(app, listener, settings.gateway)
        return 0
    finally:
        await engines.stop_all()
        _say("stopped")


async def _unless_stopped(work: Coroutine[object, object, None]) -> bool:
    """Wait for `work`, or give it up when a signal asks us to stop; says whether it was done."""
    from trilith_gateway import server

    task = asyncio.ensure_future(work)
    with server.on_signals(task.cancel):
        await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return True


def _welcome(settings: Settings, url: str) -> str:
    lines = [
        "",
        f"trilith is up: {url}",
        f"  API page   {url}/docs",
        f"  metrics    {url}/metrics",
        "",
        "models:",
        *(f"  {name:<16} {model.kind.value}" for name, model in settings.models.items()),
        "",
        "first commands to try, in another terminal:",
        "  export TRILITH_API_KEY=$(trilith keys create me --quiet)",
    ]
    chat = next((name for name, model in settings.models.items() if model.kind is Kind.CHAT), None)
    if chat is not None:
        lines += [
            f'  curl -s {url}/v1/chat/completions -H "authorization: Bearer $TRILITH_API_KEY" \\',
            f'    -d \'{{"model": "{chat}", "messages": [{{"role": "user", "content": "Hello!"}}]}}\'',
        ]
    return "\n".join([*lines, "  trilith costs", "  trilith traces", "", "Ctrl-C stops everything.", ""])


def _say(text: str) -> None:
    print(f"trilith up: {text}", file=sys.stderr, flush=True)


command = Up()
