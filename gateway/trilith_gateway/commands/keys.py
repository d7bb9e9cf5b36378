"""`trilith keys`: create, change, list and revoke API keys; a running gateway takes the changes up."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from datetime import UTC, datetime

from trilith.errors import DataError
from trilith.settings.schema import Settings
from trilith_gateway import key
from trilith_gateway.commands.agreed import HEAD, add_terms, checked_terms, given_terms, shown_terms
from trilith_gateway.commands.option import add_settings, read_settings, table
from trilith_gateway.store.opening import open_connection
from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import COLUMNS


class Keys:
    """Manage API keys."""

    help = "create, change, list and revoke API keys"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help="make a key and show it once")
        create.add_argument("name", help="what or who the key is for")
        create.add_argument("--team", default="default", help="who pays (default: %(default)s)")
        create.add_argument("--models", default="", metavar="A,B", help="only these models (default: all)")
        create.add_argument(
            "--admin", action="store_true", help="may also ask under /admin, about the whole platform"
        )
        create.add_argument("--quiet", action="store_true", help="print the key and nothing else")
        change = actions.add_parser("set", help="change what is given and leave the rest; `none` clears")
        for action in (create, change):
            add_terms(action)
            action.add_argument(
                "--priority",
                choices=key.PRIORITIES,
                help="which of a full model's queues its requests wait in (default: interactive)",
            )
        change.add_argument(
            "--admin",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="let it ask under /admin, or not any more",
        )
        show = actions.add_parser("list", help="show all keys, without their secrets")
        revoke = actions.add_parser("revoke", help="make a key useless, at once and for good")
        for action in (change, revoke):
            action.add_argument("id", help="the key's id, as `trilith keys list` shows it")
        for action in (create, change, show, revoke):
            add_settings(action)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        settings = read_settings(arguments)
        with closing(open_connection(settings)) as connection:
            match arguments.action:
                case "create":
                    _create(arguments, settings, connection)
                case "set":
                    _change(arguments, settings, connection)
                case "revoke":
                    statement = "update keys set revoked_at = ? where id = ? and revoked_at is null"
                    if not connection.execute(statement, (time.time(), arguments.id)).rowcount:
                        raise _unknown(arguments.id)
                    print(f"revoked {arguments.id}")
                case _:
                    print(_listed(connection))
        return 0


def _create(arguments: argparse.Namespace, settings: Settings, connection: Connection) -> None:
    known = frozenset(filter(None, arguments.models.split(",")))
    if unknown := known - settings.models.keys():
        names = ", ".join(sorted(settings.models)) or "none"
        raise DataError(f"--models names {sorted(unknown)}, the settings declare: {names}")
    made, token = key.mint(
        arguments.name,
        team=arguments.team,
        terms=checked_terms(given_terms(arguments), settings),
        priority=arguments.priority or "interactive",
        models=known,
        admin=arguments.admin,
    )
    key.save(connection, made)
    print(token if arguments.quiet else f"{token}\nThis key is shown once and stored as a hash only.")


def _change(arguments: argparse.Namespace, settings: Settings, connection: Connection) -> None:
    values = given_terms(arguments)
    if arguments.priority is not None:
        values["priority"] = arguments.priority
    if arguments.admin is not None:
        values["admin"] = int(arguments.admin)
    if not values:
        raise DataError("nothing to change was given")
    statement = "select * from keys where id = ? and revoked_at is null"
    row = connection.execute(statement, (arguments.id,)).fetchone()
    if row is None:
        raise _unknown(arguments.id)
    checked_terms({name: row[name] for name in COLUMNS} | values, settings)
    terms = ", ".join(f"{column} = ?" for column in values)
    connection.execute(f"update keys set {terms} where id = ?", (*values.values(), arguments.id))
    print(f"changed {arguments.id}")


def _unknown(id: str) -> DataError:
    return DataError(f"no valid key has the id {id!r}; `trilith keys list` shows them")


def _listed(connection: Connection) -> str:
    rows = connection.execute("select * from keys order by created_at").fetchall()
    return table(
        ("ID", "NAME", "TEAM", *HEAD, "PRIORITY", "MODELS", "ADMIN", "CREATED", "STATE"),
        [
            (
                row["id"],
                row["name"],
                row["team"],
                *shown_terms(connection, f"key:{row['id']}", row),
                row["priority"],
                row["models"] or "all",
                "yes" if row["admin"] else "no",
                datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M"),
                "revoked" if row["revoked_at"] else "valid",
            )
            for row in rows
        ],
    )


command = Keys()
