"""The options and columns that keys, teams and orgs have in common: budgets and limits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

from trilith.errors import DataError
from trilith.money import format_usd, pico_usd
from trilith.settings.schema import Settings
from trilith.types import Kind
from trilith_gateway.budget import window
from trilith_gateway.store import lease
from trilith_gateway.store.amount import MOST
from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import COLUMNS, WINDOWS, Terms, read_terms

HEAD = ("BUDGET", "SPENT", "SHARES", "PER MINUTE", "AT ONCE")
_MOST_COUNT = 2**31 - 1


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add the options; one that is not given changes nothing, and `none` takes a limit away."""
    parser.add_argument("--budget-usd", type=_money, metavar="USD", help="most that may be spent per window")
    parser.add_argument(
        "--budget-window", choices=WINDOWS, help="which window, by the UTC calendar (default: month)"
    )
    parser.add_argument(
        "--soft-percent",
        type=_number(1, 100),
        metavar="N",
        help="tell people when this share of the budget is spent",
    )
    parser.add_argument(
        "--degrade-percent",
        type=_number(0, 100),
        metavar="N",
        help="answer with --degrade-to what would go beyond this share",
    )
    parser.add_argument("--degrade-to", metavar="MODEL", help="a cheaper chat model")
    parser.add_argument("--requests-per-minute", type=_number(1, _MOST_COUNT), metavar="N")
    parser.add_argument("--tokens-per-minute", type=_number(1, _MOST_COUNT), metavar="N")
    parser.add_argument(
        "--max-concurrency", type=_number(1, _MOST_COUNT), metavar="N", help="most requests under way at once"
    )


def given_terms(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the columns that the arguments name."""
    options = {"budget_pico_usd": "budget_usd"}
    found = {name: getattr(arguments, options.get(name, name)) for name in COLUMNS}
    if found["degrade_to"] == "none":
        found["degrade_to"] = ""
    return {name: None if value == "none" else value for name, value in found.items() if value is not None}


def checked_terms(values: Mapping[str, Any], settings: Settings) -> Terms:
    """Make terms of columns.

    Raises:
        DataError: they contradict each other or the settings.
    """
    terms = Terms(**{name: value for name, value in values.items() if name in COLUMNS})
    if (terms.degrade_percent is None) != (not terms.degrade_to):
        raise DataError("--degrade-percent and --degrade-to belong together; give both, or `none` for both")
    shares = terms.soft_percent is not None or terms.degrade_percent is not None
    if shares and terms.budget_pico_usd is None:
        raise DataError("--soft-percent and --degrade-percent are shares of a budget; give --budget-usd too")
    if terms.degrade_to:
        chats = {name: model for name, model in settings.models.items() if model.kind is Kind.CHAT}
        model = chats.get(terms.degrade_to)
        if model is None or model.price is None:
            names = ", ".join(sorted(name for name in chats if chats[name].price is not None)) or "none"
            raise DataError(
                f"--degrade-to is {terms.degrade_to!r}, expected a chat model with a price: {names}"
            )
    return terms


def shown_terms(connection: Connection, account: str, row: Any) -> tuple[str, ...]:
    """Return the cells under `HEAD` for a row of keys, teams or orgs."""
    terms = read_terms(row)
    shares = []
    if terms.soft_percent is not None:
        shares.append(f"soft {terms.soft_percent} %")
    if terms.degrade_percent is not None:
        shares.append(f"{terms.degrade_to} from {terms.degrade_percent} %")
    paced = []
    if terms.requests_per_minute is not None:
        paced.append(f"{terms.requests_per_minute} requests")
    if terms.tokens_per_minute is not None:
        paced.append(f"{terms.tokens_per_minute} tokens")
    start, _ = window(terms.budget_window, time.time())
    spent = lease.charged(connection, account, start)
    return (
        "-" if terms.budget_pico_usd is None else _budget(terms.budget_pico_usd, terms.budget_window),
        format_usd(spent),
        ", ".join(shares) or "-",
        ", ".join(paced) or "-",
        str(terms.max_concurrency or "-"),
    )


def _budget(amount: int, window: str) -> str:
    return f"{format_usd(amount)} USD/{window}" if window != "total" else f"{format_usd(amount)} USD"


def _money(text: str) -> int | str:
    if text == "none":
        return text
    try:
        amount = pico_usd(text, what="--budget-usd")
    except (ArithmeticError, ValueError):
        amount = MOST + 1
    if amount > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of US dollars such as 5 or 0.25")
    return amount


def _number(least: int, most: int) -> Callable[[str], int | str]:
    def read(text: str) -> int | str:
        if text == "none":
            return text
        if not (text.isascii() and text.isdecimal()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read
