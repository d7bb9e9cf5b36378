"""`trilith teams` and `trilith orgs`: who shares a budget and limits; a running gateway takes changes up."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import Any

from trilith.errors import DataError
from trilith.settings.schema import Settings
from trilith_gateway import group
from trilith_gateway.commands.agreed import HEAD, add_terms, checked_terms, given_terms, shown_terms
from trilith_gateway.commands.option import add_settings, read_settings, table
from trilith_gateway.store.opening import open_connection
from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import COLUMNS


class Groups:
    """Manage the rows of one table."""

    def __init__(self, one: str, help: str) -> None:
        """Take what one row is called: `team` or `org`."""
        self._one = one
        self._table = f"{one}s"
        self.help = help

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        create = actions.add_parser("create", help=f"declare a new {self._one}")
        change = actions.add_parser("set", help="change what is given and leave the rest; `none` clears")
        for action in (create, change):
            action.add_argument("name")
            if self._one == "team":
                action.add_argument("--org", metavar="ORG", help="which org it belongs to")
                action.add_argument(
                    "--weight",
                    type=_weight,
                    metavar="N",
                    help="its share when a model is full, compared with other teams (default: 1)",
                )
            add_terms(action)
        show = actions.add_parser("list", help=f"show all {self._table} and what they have spent")
        for action in (create, change, show):
            add_settings(action)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        settings = read_settings(arguments)
        with closing(open_connection(settings)) as connection:
            if arguments.action == "list":
                print(self._listed(connection))
            else:
                self._write(arguments, settings, connection)
                print(f"{'created' if arguments.action == 'create' else 'changed'} {arguments.name}")
        return 0

    def _write(self, arguments: argparse.Namespace, settings: Settings, connection: Connection) -> None:
        values = given_terms(arguments)
        for name in ("org", "weight"):
            if (value := getattr(arguments, name, None)) is not None:
                values[name] = "" if value == "none" else value
        row = self._row(connection, self._table, arguments.name)
        if values.get("org") and self._row(connection, "orgs", values["org"]) is None:
            raise DataError(f"there is no org {values['org']!r}; `trilith orgs create` makes it")
        if arguments.action == "create":
            if row is not None:
                raise DataError(f"the {self._one} {arguments.name!r} exists; `set` changes it")
            checked_terms(values, settings)
            group.save(connection, self._table, arguments.name, values)
        else:
            if row is None:
                raise DataError(f"there is no {self._one} {arguments.name!r}; `create` makes it")
            if not values:
                raise DataError("nothing to change was given")
            checked_terms({name: row[name] for name in COLUMNS} | values, settings)
            group.change(connection, self._table, arguments.name, values)

    def _row(self, connection: Connection, table: str, name: str) -> Any:
        return connection.execute(f"select * from {table} where name = ?", (name,)).fetchone()

    def _listed(self, connection: Connection) -> str:
        own = ("ORG", "WEIGHT") if self._one == "team" else ()
        rows = connection.execute(f"select * from {self._table} order by name").fetchall()
        return table(
            ("NAME", *own, *HEAD),
            [
                (
                    row["name"],
                    *(str(row[name.lower()]) or "-" for name in own),
                    *shown_terms(connection, f"{self._one}:{row['name']}", row),
                )
                for row in rows
            ],
        )


def _weight(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1000")
    return int(text)


command = Groups("team", "create, change and list teams, with budgets and limits for all their keys")
orgs_command = Groups("org", "create, change and list orgs, with budgets and limits for all their teams")
