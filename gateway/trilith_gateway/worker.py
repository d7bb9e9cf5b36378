"""One worker of a gateway with several; started by `workers`, never by hand."""

from __future__ import annotations

import argparse
import socket
import sys


def main(arguments: list[str]) -> int:
    """Serve on an inherited socket until a signal: WORKER TOKEN DESCRIPTOR, then the options of `serve`."""
    worker, token, descriptor, *rest = arguments
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
    source = Source(loaded.path, lambda: read_settings(chosen))
    app = create_app(loaded.settings, source=source, worker=worker, token=token)

    async def serve() -> int:
        await server.serve(app, listener, loaded.settings.gateway)
        return 0

    return server.run(serve())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
