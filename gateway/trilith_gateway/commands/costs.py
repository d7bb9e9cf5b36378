"""`trilith costs`: what each key, model and kind spent, exact to the last pico-dollar."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from typing import Any

from trilith.money import format_usd
from trilith_gateway import focus
from trilith_gateway.commands.option import add_settings, read_settings, table
from trilith_gateway.store.opening import open_connection
from trilith_gateway.store.seam import Connection

_GROUPS = {
    "key": "ledger.key_id",
    "team": "ledger.team",
    "model": "ledger.model",
    "kind": "ledger.kind",
    "release": "ledger.release",
    "rule": "ledger.rule",
    "day": "date(ledger.at, 'unixepoch')",
}


_SUMS = ("requests", "input_tokens", "output_tokens", "rows")
_POSTGRES_DAY = "to_char(to_timestamp(ledger.at) at time zone 'utc', 'YYYY-MM-DD')"


class Costs:
    """Report spending."""

    help = "what each key, model and kind spent"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--by",
            default="key,model,kind",
            metavar="A,B",
            help=f"group by any of {', '.join(_GROUPS)} (%(default)s)",
        )
        parser.add_argument(
            "--json", action="store_true", help="print JSON; amounts are integers of pico-USD"
        )
        parser.add_argument(
            "--focus", action="store_true", help="print CSV as FOCUS 1.2 has it, by day and key"
        )
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the report."""
        groups = [name for name in arguments.by.split(",") if name]
        if unknown := [name for name in groups if name not in _GROUPS] or not groups:
            print(f"trilith costs: --by {unknown} is not known; expected some of {', '.join(_GROUPS)}")
            return 2
        settings = read_settings(arguments)
        with closing(open_connection(settings)) as connection:
            if arguments.focus:
                day = _POSTGRES_DAY if settings.store.url is not None else _GROUPS["day"]
                found = connection.execute(focus.statement(day)).fetchall()
                focus.write(focus.rows(found, settings.home.parent.name or "trilith"), sys.stdout)
                return 0
            rows = spending(connection, groups, postgres=settings.store.url is not None)
            names = {row["id"]: row["name"] for row in connection.execute("select id, name from keys")}
            waiting = connection.execute("select count(*) from reservations where state = 'open'").fetchone()[
                0
            ]
        if arguments.json:
            names_of = (*groups, *_SUMS, "amount_pico_usd", "saved_pico_usd", "unpriced")
            print(json.dumps([{name: row[name] for name in names_of} for row in rows], indent=2))
            return 0
        print(_report(rows, groups, names))
        print(f"\n{waiting} reservations open" if waiting else "\nno reservation is open")
        return 0


def spending(connection: Connection, groups: list[str], *, postgres: bool = False) -> list[Any]:
    """Return sums over the ledger, one row per combination of `groups`, dearest first."""
    terms = _GROUPS | ({"day": _POSTGRES_DAY} if postgres else {})
    chosen = ", ".join(f"{terms[name]} as {name}" for name in groups)
    return connection.execute(
        f"select {chosen}, count(*) as requests, sum(input_tokens) as input_tokens,"
        " sum(output_tokens) as output_tokens, sum(rows) as rows,"
        " coalesce(sum(amount_pico_usd), 0) as amount_pico_usd, "
        " coalesce(sum(saved_pico_usd), 0) as saved_pico_usd,"
        " sum(case when amount_pico_usd is null then 1 else 0 end) as unpriced"
        f" from ledger group by {', '.join(str(n + 1) for n in range(len(groups)))}"
        " order by amount_pico_usd desc"
    ).fetchall()


def _report(rows: list[Any], groups: list[str], names: dict[str, str]) -> str:
    head = (
        *(name.upper() for name in groups),
        "REQUESTS",
        "INPUT",
        "OUTPUT",
        "ROWS",
        "USD",
        "SAVED",
        "UNPRICED",
    )
    shown = [
        (
            *(names.get(row[name], row[name]) if name == "key" else str(row[name]) for name in groups),
            *(f"{row[name]:,}" for name in _SUMS),
            format_usd(row["amount_pico_usd"]),
            format_usd(row["saved_pico_usd"]),
            str(row["unpriced"]),
        )
        for row in rows
    ]
    total = (
        "total",
        *("" for _ in groups[1:]),
        *(f"{sum(row[name] for row in rows):,}" for name in _SUMS),
        format_usd(sum(row["amount_pico_usd"] for row in rows)),
        format_usd(sum(row["saved_pico_usd"] for row in rows)),
        str(sum(row["unpriced"] for row in rows)),
    )
    return table(head, [*shown, total], right=range(len(groups), len(head)))


command = Costs()
