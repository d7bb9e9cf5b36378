"""`trilith audit`: what governance did, and whether the log is as it was written."""

from __future__ import annotations

import argparse
from contextlib import closing
from datetime import UTC, datetime

from trilith_gateway.commands.option import add_settings, positive, read_settings, table
from trilith_gateway.store import audit
from trilith_gateway.store.opening import open_connection


class Audit:
    """Read the audit log."""

    help = "list the audit log, or verify its chain of digests"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        show = actions.add_parser("list", help="show the newest entries")
        show.add_argument("--limit", type=positive, default=50, help="how many (%(default)s)")
        verify = actions.add_parser("verify", help="check every entry against its digest")
        for action in (show, verify):
            add_settings(action)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked; 1 when the chain is broken."""
        settings = read_settings(arguments)
        with closing(open_connection(settings)) as connection:
            if arguments.action == "verify":
                fault = audit.first_fault(connection)
                last = connection.execute(
                    "select number, digest from audit order by number desc limit 1"
                ).fetchone()
                if fault is not None:
                    print(f"the audit log was changed: entry {fault} does not fit the chain")
                    return 1
                print(
                    f"{last['number']} entries, last digest {last['digest']}: intact"
                    if last
                    else "no entries"
                )
                return 0
            rows = connection.execute(
                "select * from audit order by number desc limit ?", (arguments.limit,)
            ).fetchall()
        shown = [
            (
                str(row["number"]),
                datetime.fromtimestamp(row["at"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
                row["event"],
                row["detail"],
            )
            for row in rows
        ]
        print(table(("NO", "AT (UTC)", "EVENT", "DETAIL"), shown))
        return 0


command = Audit()
