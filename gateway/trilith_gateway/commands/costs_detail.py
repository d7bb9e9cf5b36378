"""The further actions of `trilith costs`: forecasts of budgets, re-rating, own servers."""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

from trilith.errors import DataError
from trilith.money import format_usd
from trilith.settings.engine import EngineCostSettings
from trilith.settings.schema import Settings
from trilith_gateway import enginecost, key, rerate
from trilith_gateway.budget import window
from trilith_gateway.commands.option import table
from trilith_gateway.forecast import Forecast, forecast
from trilith_gateway.store import lease
from trilith_gateway.store.amount import read, total
from trilith_gateway.store.opening import open_connection, open_database
from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import Budget

_DAY_S, _HOUR_S = 86400, 3600


def forecasts(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what each budget's window will have cost at its end."""
    now = time.time()
    with closing(open_connection(settings)) as connection:
        names = _names(connection)
        found = [(one, of_budget(connection, one, now)) for one in _budgets(connection)]
    if arguments.json:
        print(json.dumps([_plain(one, told) for one, told in found], indent=2))
        return 0
    if not found:
        print("no key, team or org has a budget")
        return 0
    rows = []
    for one, told in found:
        interval = "-"
        if told.low is not None and told.high is not None:
            interval = f"{_short(told.low)} to {_short(told.high)}"
        expected = "-" if told.expected is None else _short(told.expected)
        rows.append(
            (
                names.get(one.account, one.account.replace(":", " ")),
                one.window,
                format_usd(one.pico_usd),
                _short(told.spent),
                expected,
                interval,
                told.verdict(one.pico_usd),
            )
        )
    print(table(("WHOSE", "WINDOW", "BUDGET", "SPENT", "EXPECTED", "95 % OF CASES", "VERDICT"), rows))
    return 0


def _names(connection: Connection) -> dict[str, str]:
    return {f"key:{one.id}": f"key {one.name}" for one in key.load(connection)}


def _budgets(connection: Connection) -> list[Budget]:
    """Return every budget once: those of the keys, then of their teams, then of their orgs."""
    found = {one.account: one for each in key.load(connection) for one in each.budgets}
    return sorted(found.values(), key=lambda one: (("key", "team", "org").index(one.level), one.account))


def of_budget(connection: Connection, budget: Budget, now: float) -> Forecast:
    """Forecast the window of a budget that holds `now`; one over all time is forecast 30 days ahead."""
    start, end = window(budget.window, now)
    size = _HOUR_S if budget.window == "day" else _DAY_S
    column, value = lease.condition(budget.account)
    sums: dict[int, int] = {}
    first = start
    statement = f"select at, amount_pico_usd from ledger where {column} = ? and at >= ?"
    for row in connection.execute(statement + " and amount_pico_usd is not null", (value, start)):
        sums[int(row[0] // size)] = sums.get(int(row[0] // size), 0) + int(row[1])
    if end == float("inf"):
        first, end = float(min(sums, default=int(now // size)) * size), now + 30 * _DAY_S
    present = int(now // size)
    whole = [sums.get(part, 0) for part in range(int(first // size), present)]
    running = sum(amount for part, amount in sums.items() if part >= present)
    return forecast(whole, running, (now - first) / size, (end - now) / size)


def _plain(budget: Budget, told: Forecast) -> dict[str, Any]:
    return {
        "account": budget.account,
        "window": budget.window,
        "budget_pico_usd": budget.pico_usd,
        "spent_pico_usd": told.spent,
        "expected_pico_usd": told.expected,
        "low_pico_usd": told.low,
        "high_pico_usd": told.high,
        "parts": told.parts,
        "verdict": told.verdict(budget.pico_usd),
    }


def _short(pico: int) -> str:
    return f"{pico / 10**12:,.6f}"


def rerated(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what other prices would change, and append it as adjustments where that is asked for."""
    if arguments.since is None:
        print("trilith costs rerate: --since is missing, expected a day such as 2026-11-01")
        return 2
    since, now = rerate.since_of(arguments.since), time.time()
    prices, lines = (
        rerate.prices_of(settings, arguments.price_from, batched=batched) for batched in (False, True)
    )
    with closing(open_connection(settings)) as connection:
        if arguments.apply:
            database = open_database(settings)
            found = rerate.apply(
                database, connection, prices, since, now, arguments.model, batch_prices=lines
            )
            if found.adjustments:
                enginecost.correct(database, connection, enginecost.accounts(settings), since, now)
        else:
            found, _ = rerate.find(connection, prices, since, now, arguments.model, batch_prices=lines)
    print(
        f"{found.rows:,} charges, {found.adjustments:,} differ, by {format_usd(found.amount)} USD in all; "
        f"{found.unpriced:,} have no price there and stay as they are"
    )
    if found.adjustments:
        print("the adjustments are in the ledger" if arguments.apply else "nothing was written; add --apply")
    return 0


def engines(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what each own server cost, what was charged for it, and what each team would bear of it."""
    since = rerate.since_of(arguments.since) if arguments.since else 0.0
    until = rerate.since_of(arguments.until) if arguments.until else float("inf")
    told: list[dict[str, Any]] = []
    with closing(open_connection(settings)) as connection:
        for account in enginecost.accounts(settings):
            told.append(_engine(connection, settings, account, since, until))
    if arguments.json:
        print(json.dumps(told, indent=2))
        return 0
    if not told:
        print("no server has a `cost` in the settings")
        return 0
    rows = []
    for one in told:
        share = (
            f"{100 * one['charged_pico_usd'] / one['cost_pico_usd']:.1f} %" if one["cost_pico_usd"] else "-"
        )
        amounts = [format_usd(one[name]) for name in ("cost_pico_usd", "charged_pico_usd", "idle_pico_usd")]
        rows.append((one["server"], "all", *amounts, share))
        for team, amount in one["absorbed_pico_usd"].items():
            rows.append((one["server"], team, format_usd(amount), format_usd(one["teams"][team]), "", ""))
    print(table(("SERVER", "TEAM", "COST", "CHARGED", "IDLE", "CHARGED OF COST"), rows, right=range(2, 6)))
    return 0


def _engine(
    connection: Connection, settings: Settings, account: enginecost.Account, since: float, until: float
) -> dict[str, Any]:
    cost = enginecost.cost_of(settings, account.name) or EngineCostSettings(usd_per_hour=0)
    marks = ", ".join("?" * len(account.models))
    begun = connection.execute(
        "select min(at), max(at) from ledger where model = ? and category = 'idle' and at >= ? and at < ?",
        (account.name, since, until),
    ).fetchone()
    # Only windows that are booked: what is charged in the present one has no idle row yet.
    first, last = (begun[0], begun[1] + account.window_s) if begun[0] is not None else (0.0, 0.0)
    rows = connection.execute(
        "select team, sum(input_tokens) as input_tokens, sum(cached_input_tokens) as cached_input_tokens,"
        f" sum(output_tokens) as output_tokens, {total('amount_pico_usd')} from ledger"
        f" where model in ({marks}) and at >= ? and at < ? group by team order by team",
        (*account.models, first, last),
    ).fetchall()
    idle = read(
        connection.execute(
            f"select {total('amount_pico_usd')} from ledger where model = ? and at >= ? and at < ?",
            (account.name, first, last),
        ).fetchone()
    )
    teams = {row["team"]: read(row) for row in rows}
    units = {row["team"]: enginecost.work(row, cost) for row in rows}
    cost_in_all = sum(teams.values()) + idle
    return {
        "server": account.name,
        "cost_pico_usd": cost_in_all,
        "charged_pico_usd": sum(teams.values()),
        "idle_pico_usd": idle,
        "teams": teams,
        "absorbed_pico_usd": enginecost.absorbed(cost_in_all, units) if any(units.values()) else {},
    }


def fitted(arguments: argparse.Namespace) -> int:
    """Print weights and capacity as a busy server's own metrics tell them."""
    if not arguments.url:
        print("trilith costs fit: --url is missing, expected a vLLM server such as http://127.0.0.1:8100")
        return 2
    url = arguments.url.rstrip("/").removesuffix("/v1") + "/metrics"
    before, began = _metrics(url), time.monotonic()
    time.sleep(arguments.seconds)
    after = _metrics(url)
    found = enginecost.fit(before, after, time.monotonic() - began)
    if found is None:
        print("the server did nothing meanwhile; keep it fully busy while it is measured")
        return 1
    print("cost:")
    for name, value in found.items():
        print(f"  {name}: {value}")
    return 0


def _metrics(url: str) -> dict[str, float]:
    if not url.startswith(("http://", "https://")):
        raise DataError(f"{url!r} is no address; expected http://HOST:PORT")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return enginecost.read_metrics(answer.read())
    except (urllib.error.URLError, TimeoutError) as error:
        raise DataError(f"{url} does not answer: {error}") from error
