"""`trilith serve`: the gateway alone; engines are started by someone else."""

from __future__ import annotations

import argparse
from socket import socket

from trilith.settings.schema import Settings
from trilith_gateway.commands.option import add_address, add_settings, load, positive, read_settings


class Serve:
    """Run the gateway."""

    help = "run the gateway (engines are started elsewhere; `trilith up` starts everything)"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        add_address(parser)
        add_settings(parser)
        parser.add_argument(
            "--workers",
            type=positive,
            default=1,
            metavar="N",
            help="processes that share the port (%(default)s)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Serve until a signal."""
        loaded = load(arguments)
        settings = loaded.settings

        from trilith_gateway import server
        from trilith_gateway.app import create_app
        from trilith_gateway.reload import Source

        with server.listen(settings.gateway) as listener:
            if arguments.workers > 1:
                return _workers(arguments, settings, listener)
            app = create_app(settings, source=Source(loaded.path, lambda: read_settings(arguments)))

            async def main() -> int:
                print(f"trilith gateway on {server.address(listener)}", flush=True)
                await server.serve(app, listener, settings.gateway)
                return 0

            return server.run(main())


def _workers(arguments: argparse.Namespace, settings: Settings, listener: socket) -> int:
    from trilith_gateway import server
    from trilith_gateway.workers import Workers

    given = {"--settings": arguments.settings, "--host": arguments.host, "--port": arguments.port}
    rest = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    patience = settings.gateway.drain_notice_s + settings.gateway.drain_s
    parent = Workers(arguments.workers, settings.home, listener, rest, patience)
    print(f"trilith gateway on {server.address(listener)}, {arguments.workers} workers", flush=True)
    return parent.run()


command = Serve()
