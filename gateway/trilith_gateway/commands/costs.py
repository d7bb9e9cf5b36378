"""`trilith costs`: what each key, team, model and kind spent, exact to the last pico-dollar."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith.money import format_usd
from trilith.settings.schema import Settings
from trilith_gateway import focus, rerate
from trilith_gateway.commands import costs_detail as detail
from trilith_gateway.commands.option import add_settings, read_settings, table
from trilith_gateway.store.amount import read, total
from trilith_gateway.store.opening import open_connection
from trilith_gateway.store.seam import Connection

_GROUPS = {
    "key": "ledger.key_id",
    "team": "ledger.team",
    "org": "ledger.org",
    "model": "ledger.model",
    "kind": "ledger.kind",
    "release": "ledger.release",
    "rule": "ledger.rule",
    "asked": "case when ledger.asked = '' then ledger.model else ledger.asked end",
    "category": "ledger.category",
    "day": "date(ledger.at, 'unixepoch')",
}

_SUMS = ("requests", "input_tokens", "output_tokens", "rows")
_AMOUNTS = ("amount_pico_usd", "saved_pico_usd", "unpriced")
_POSTGRES_DAY = "to_char(to_timestamp(ledger.at) at time zone 'utc', 'YYYY-MM-DD')"


class Costs:
    """Report spending."""

    help = "what each key, team, model and kind spent; forecasts, re-rating, own servers"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        parser.add_argument(
            "action",
            nargs="?",
            choices=("report", "forecast", "rerate", "engines", "fit"),
            default="report",
            help="report spending, forecast budgets, rerate, show own servers, fit weights (%(default)s)",
        )
        parser.add_argument(
            "--by",
            default="key,model,kind",
            metavar="A,B",
            help=f"group by any of {', '.join(_GROUPS)} (%(default)s)",
        )
        parser.add_argument("--since", metavar="TIME", help="from this day or time on (ISO 8601, UTC)")
        parser.add_argument("--until", metavar="TIME", help="before this day or time")
        parser.add_argument("--model", help="rerate: only this model's charges")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print JSON; amounts are integers of pico-USD")
        form.add_argument("--csv", action="store_true", help="print CSV; amounts are decimal US dollars")
        form.add_argument(
            "--focus", action="store_true", help="print CSV as FOCUS 1.2 has it, by day and key"
        )
        form.add_argument("--parquet", type=Path, metavar="PATH", help="write the same as a Parquet file")
        parser.add_argument(
            "--price-from",
            choices=("settings", "book"),
            default="settings",
            help="rerate: at the prices of the settings, or of the price book (%(default)s)",
        )
        parser.add_argument("--apply", action="store_true", help="rerate: append the adjustments")
        parser.add_argument("--url", help="fit: a vLLM server, such as http://127.0.0.1:8100")
        parser.add_argument("--seconds", type=float, default=60, help="fit: how long to look (%(default)s)")
        add_settings(parser)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        actions: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
            "report": self._report,
            "forecast": detail.forecasts,
            "rerate": detail.rerated,
            "engines": detail.engines,
        }
        if arguments.action == "fit":
            return detail.fitted(arguments)
        return actions[arguments.action](read_settings(arguments), arguments)

    def _report(self, settings: Settings, arguments: argparse.Namespace) -> int:
        groups = [name for name in arguments.by.split(",") if name]
        if not groups or not set(groups) <= _GROUPS.keys():
            raise DataError(f"--by is {arguments.by!r}, expected some of {', '.join(_GROUPS)}")
        since = rerate.since_of(arguments.since) if arguments.since else 0.0
        until = rerate.since_of(arguments.until) if arguments.until else float("inf")
        postgres = settings.store.url is not None
        with closing(open_connection(settings)) as connection:
            if arguments.focus or arguments.parquet:
                day = _POSTGRES_DAY if postgres else _GROUPS["day"]
                found = connection.execute(focus.statement(day), (since, until)).fetchall()
                rows = focus.rows(found, settings.home.parent.name or "trilith")
                if arguments.parquet:
                    focus.write_parquet(rows, arguments.parquet)
                else:
                    focus.write(rows, sys.stdout)
                return 0
            spent = spending(connection, groups, postgres=postgres, since=since, until=until)
            names = {row["id"]: row["name"] for row in connection.execute("select id, name from keys")}
            statement = "select count(*) from reservations where state = 'open'"
            waiting = connection.execute(statement).fetchone()[0]
        if arguments.json:
            names_of = (*groups, *_SUMS, *_AMOUNTS)
            print(json.dumps([{name: row[name] for name in names_of} for row in spent], indent=2))
        elif arguments.csv:
            _write_csv(spent, groups)
        else:
            print(_table(spent, groups, names))
            print(f"\n{waiting} reservations open" if waiting else "\nno reservation is open")
        return 0


def spending(
    connection: Connection,
    groups: list[str],
    *,
    postgres: bool = False,
    since: float = 0.0,
    until: float = float("inf"),
) -> list[dict[str, Any]]:
    """Return sums over the ledger, one row per combination of `groups`, dearest first.

    A request counts once, however many rows it has. `unpriced` counts charges whose amount is unknown still.
    """
    terms = _GROUPS | ({"day": _POSTGRES_DAY} if postgres else {})
    chosen = ", ".join(f"{terms[name]} as {name}" for name in groups)
    found = connection.execute(
        f"select {chosen}, sum(case when category = 'usage' then 1 else 0 end) as requests,"
        " sum(input_tokens) as input_tokens, sum(output_tokens) as output_tokens, sum(rows) as rows,"
        f" {total('amount_pico_usd')}, {total('saved_pico_usd')},"
        " sum(case when amount_pico_usd is null and not exists"
        " (select 1 from ledger a where a.adjusts = ledger.id and a.adjusts <> '') then 1 else 0 end)"
        " as unpriced"
        f" from ledger where at >= ? and at < ? group by {', '.join(str(n + 1) for n in range(len(groups)))}",
        (since, until),
    ).fetchall()
    money = ("amount_pico_usd", "saved_pico_usd")
    rows = [
        {name: row[name] for name in (*groups, *_SUMS, "unpriced")}
        | {name: read(row, name) for name in money}
        for row in found
    ]
    return sorted(rows, key=lambda row: -row["amount_pico_usd"])


def _table(rows: Sequence[Any], groups: list[str], names: dict[str, str]) -> str:
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


def _write_csv(rows: Sequence[Any], groups: list[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*groups, *_SUMS, "usd", "saved_usd", "unpriced"])
    for row in rows:
        money = [format_usd(row["amount_pico_usd"]), format_usd(row["saved_pico_usd"]), row["unpriced"]]
        writer.writerow([*(row[name] for name in (*groups, *_SUMS)), *money])


command = Costs()
