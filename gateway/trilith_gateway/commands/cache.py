"""`trilith cache`: forget answers that are kept; a running gateway's workers follow."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from contextlib import closing

from trilith.errors import DataError
from trilith_gateway.caching import purge
from trilith_gateway.caching.redis import RedisCache
from trilith_gateway.caching.seam import Purge
from trilith_gateway.commands.option import add_settings, read_settings
from trilith_gateway.store.opening import open_connection


class CacheCommand:
    """Look after kept answers."""

    help = "forget answers that are kept"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        forget = actions.add_parser(
            "purge", help="forget answers; all of them if neither model nor team is named"
        )
        forget.add_argument("--model", help="only answers of this model")
        forget.add_argument("--team", help="only answers to this team")
        add_settings(forget)

    def run(self, arguments: argparse.Namespace) -> int:
        """Tell every worker, and Redis where there is one; 1 when Redis could not be told."""
        settings = read_settings(arguments)
        if arguments.model is not None and arguments.model not in settings.models:
            names = ", ".join(sorted(settings.models)) or "none"
            raise DataError(f"--model names {arguments.model!r}, the settings declare: {names}")
        wish = Purge(time.time(), arguments.model, arguments.team)
        with closing(open_connection(settings)) as connection:
            purge.announce(connection, wish)
        if settings.store.redis_url is not None:
            try:
                asyncio.run(_purge(settings.store.redis_url.get_secret_value(), wish))
            except OSError as error:
                print(f"trilith cache: {error}", file=sys.stderr)
                return 1
        what = f"model {wish.model}" if wish.model else "all models"
        whose = f"team {wish.team}" if wish.team else "all teams"
        print(f"answers of {what} to {whose} are forgotten; running workers follow within a second")
        return 0


async def _purge(url: str, wish: Purge) -> None:
    cache = RedisCache(url)
    try:
        await cache.purge(wish)
    finally:
        await cache.aclose()


command = CacheCommand()
