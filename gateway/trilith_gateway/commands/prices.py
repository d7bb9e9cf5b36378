"""`trilith prices`: the price book that comes with the release."""

from __future__ import annotations

import argparse
from decimal import Decimal

from trilith.money import PICO_PER_USD, Price
from trilith.prices import BOOK, FIELDS, load
from trilith.prices.pin import SHA256
from trilith_gateway.commands.option import table

_PER_MTOK = [attribute for attribute in FIELDS.values() if attribute.endswith("_token")]


class Prices:
    """Show the price book."""

    help = "list, show and verify the price book"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the subcommands."""
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="list the models in the book")
        listing.add_argument("contains", nargs="?", default="", help="only names that contain this")
        show = actions.add_parser("show", help="show one model's price, per million tokens")
        show.add_argument("model", help="the model, as provider/model")
        actions.add_parser("verify", help="check that the book is the one that was recorded")

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked."""
        book = load()
        if arguments.action == "verify":
            print(f"{book.edition}, {len(book.entries):,} models, sha256 {SHA256}: {BOOK} is unchanged")
        elif arguments.action == "show":
            print(_shown(book.price(arguments.model)))
            print(f"\n{arguments.model} in {book.edition}; USD, tokens per million, the rest each")
        else:
            found = [name for name in book.entries if arguments.contains in name]
            rows = [(name, *_columns(book.price(name))) for name in found]
            print(table(("MODEL", "INPUT", "CACHED", "OUTPUT"), rows, right=range(1, 4)))
        return 0


def _columns(price: Price) -> tuple[str, str, str]:
    cached = "-" if price.cached_input_token is None else _mtok(price.cached_input_token)
    return _mtok(price.input_token), cached, _mtok(price.output_token)


def _shown(price: Price) -> str:
    sheets = [("standard", price), *((f"above {n:,} input tokens", sheet) for n, sheet in price.steps)]
    for tier, sheet in price.tiers.items():
        sheets += [(tier, sheet), *((f"{tier}, above {n:,}", other) for n, other in sheet.steps)]
    names = [name for name in FIELDS.values() if any(getattr(sheet, name) is not None for _, sheet in sheets)]
    rows = [
        (
            title,
            *(_rate(name, getattr(sheet, name)) for name in names),
            ", ".join(sheet.unknown).replace("_", " ") or "-",
        )
        for title, sheet in sheets
    ]
    head = ("", *(name.removesuffix("_token").replace("_", " ").upper() for name in names), "UNKNOWN")
    return table(head, rows, right=range(1, len(names) + 1))


def _rate(name: str, pico: int | None) -> str:
    if pico is None:
        return "-"
    return _mtok(pico) if name in _PER_MTOK else f"{Decimal(pico) / PICO_PER_USD:f}"


def _mtok(pico: int) -> str:
    return f"{(Decimal(pico) / 10**6).normalize():f}"


command = Prices()
