"""`trilith store`: the database's version, its migration, and whether it is sound."""

from __future__ import annotations

import argparse
from contextlib import closing

from trilith.settings.schema import Settings
from trilith_gateway.commands.option import add_settings, read_settings
from trilith_gateway.store import audit, schema, sqlite
from trilith_gateway.store.opening import open_connection

_TABLES = (
    *("keys", "ledger", "reservations", "audit", "feedback", "leases", "holders"),
    *("eval_runs", "eval_findings"),
)


class Store:
    """Look after the database."""

    help = "migrate the database, check it, or show what it holds"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        for name, text in (
            ("migrate", "bring the database to this release's version"),
            ("check", "check the version and the audit log's chain"),
            ("status", "show version and row counts"),
        ):
            add_settings(actions.add_parser(name, help=text))

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked; 1 when a check fails."""
        settings = read_settings(arguments)
        if arguments.action == "migrate":
            _migrate(settings)
            print(f"the database has version {schema.HEAD}")
            return 0
        with closing(open_connection(settings)) as connection:
            if arguments.action == "status":
                print(f"version {schema.version(connection, postgres=settings.store.url is not None)}")
                for table in _TABLES:
                    print(f"{table}: {connection.execute(f'select count(*) from {table}').fetchone()[0]}")
                return 0
            fault = audit.first_fault(connection)
        if fault is not None:
            print(f"the audit log was changed: entry {fault} does not fit the chain")
            return 1
        print(f"version {schema.HEAD}, audit log intact")
        return 0


def _migrate(settings: Settings) -> None:
    if settings.store.url is None:
        sqlite.create(sqlite.database(settings.home)).close()
        return
    from trilith_gateway.store.postgres import migrate

    migrate(settings.store.url)


command = Store()
