"""`trilith keys`: create, list and revoke API keys; a running gateway takes the changes up."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from trilith.errors import DataError
from trilith.money import format_usd, pico_usd
from trilith_gateway import key
from trilith_gateway.commands.option import add_settings, positive, read_settings, table
from trilith_gateway.store.opening import open_connection

_MOST_PICO_USD = 9_000_000 * 10**12
"""What fits into a database's largest integer."""


class Keys:
    """Manage API keys."""

    help = "create, list and revoke API keys"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key and show it once")
        create.add_argument("name", help="what or who the key is for")
        create.add_argument("--team", default="default", help="who pays (default: %(default)s)")
        create.add_argument("--budget-usd", metavar="USD", help="most that may be spent per window")
        create.add_argument("--budget-window", choices=("day", "month", "total"), default="month")
        create.add_argument("--requests-per-minute", type=positive, metavar="N")
        create.add_argument("--models", default="", metavar="A,B", help="only these models (default: all)")
        create.add_argument("--quiet", action="store_true", help="print the key and nothing else")
        show = actions.add_parser("list", help="show all keys, without their secrets")
        revoke = actions.add_parser("revoke", help="make a key useless, at once and for good")
        revoke.add_argument("id", help="the key's id, as `trilith keys list` shows it")
        for action in (create, show, revoke):
            add_settings(action)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        settings = read_settings(arguments)
        with closing(open_connection(settings)) as connection:
            if arguments.action == "create":
                known = frozenset(filter(None, arguments.models.split(",")))
                if unknown := known - settings.models.keys():
                    names = ", ".join(sorted(settings.models)) or "none"
                    raise DataError(f"--models names {sorted(unknown)}, the settings declare: {names}")
                made, token = key.mint(
                    arguments.name,
                    team=arguments.team,
                    budget_pico_usd=_money(arguments.budget_usd),
                    budget_window=arguments.budget_window,
                    requests_per_minute=arguments.requests_per_minute,
                    models=known,
                )
                key.save(connection, made)
                print(
                    token
                    if arguments.quiet
                    else f"{token}\nThis key is shown once and stored as a hash only."
                )
            elif arguments.action == "revoke":
                statement = "update keys set revoked_at = ? where id = ? and revoked_at is null"
                if not connection.execute(statement, (time.time(), arguments.id)).rowcount:
                    raise DataError(
                        f"no valid key has the id {arguments.id!r}; `trilith keys list` shows them"
                    )
                print(f"revoked {arguments.id}")
            else:
                print(_listed(connection.execute("select * from keys order by created_at").fetchall()))
        return 0


def _listed(rows: list[Any]) -> str:
    head = ("ID", "NAME", "TEAM", "BUDGET", "REQUESTS/MIN", "MODELS", "CREATED", "STATE")
    return table(
        head,
        [
            (
                row["id"],
                row["name"],
                row["team"],
                "-"
                if row["budget_pico_usd"] is None
                else _budget(row["budget_pico_usd"], row["budget_window"]),
                str(row["requests_per_minute"] or "-"),
                row["models"] or "all",
                datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M"),
                "revoked" if row["revoked_at"] else "valid",
            )
            for row in rows
        ],
    )


def _budget(amount: int, window: str) -> str:
    return f"{format_usd(amount)} USD/{window}" if window != "total" else f"{format_usd(amount)} USD"


def _money(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        amount = pico_usd(text, what="--budget-usd")
    except (ArithmeticError, ValueError) as error:
        raise DataError(f"--budget-usd is {text!r}, expected US dollars such as 5 or 0.25") from error
    if amount > _MOST_PICO_USD:
        raise DataError(f"--budget-usd is {text!r}, expected at most 9 million US dollars")
    return amount


command = Keys()
