"""One worker of a gateway with several; started by `workers`, never by hand."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trilith.settings.schema import Settings


def share(settings: Settings, number: int, count: int) -> Settings:
    """Return the settings of one of several workers: each has its part of every model's places and queue.

    The parts add up to the whole, save that each worker has one place at least.

    Args:
        settings: The platform.
        number: Which worker, from 0.
        count: How many there are.
    """

    def part(whole: int) -> int:
        return max(min(whole, 1), whole // count + (number < whole % count))

    models = {}
    for name, model in settings.models.items():
        changed: dict[str, object] = {}
        if model.max_concurrency is not None:
            changed = {
                "max_concurrency": part(model.max_concurrency),
                "queue_length": part(model.queue_length),
            }
        models[name] = model.model_copy(update=changed)
    return settings.model_copy(update={"models": models})


def main(arguments: list[str]) -> int:
    """Serve on an inherited socket until a signal: WORKER WORKERS TOKEN DESCRIPTOR, options of `serve`."""
    worker, workers, token, descriptor, *rest = arguments
    from trilith_gateway import server
    from trilith_gateway.app import create_app
    from trilith_gateway.commands.option import add_address, add_settings, load, read_settings
    from trilith_gateway.reload import Source

    parser = argparse.ArgumentParser()
    add_address(parser)
    add_settings(parser)
    chosen = parser.parse_args(rest)
    loaded = load(chosen)
    listener = socket.socket(fileno=int(descriptor))
    number, count = int(worker), int(workers)
    source = Source(loaded.path, lambda: share(read_settings(chosen), number, count))
    app = create_app(share(loaded.settings, number, count), source=source, worker=worker, token=token)

    async def serve() -> int:
        await server.serve(app, listener, loaded.settings.gateway)
        return 0

    return server.run(serve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
