"""Options and output that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from trilith.settings import LoadedSettings, load_settings
from trilith.settings.schema import Settings


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--settings`."""
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="PATH",
        help="settings file (default: $TRILITH_SETTINGS or ./trilith.yaml)",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add `--host` and `--port`."""
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")


def positive(text: str) -> int:
    """Read an option that counts something."""
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1 and below 2^31")
    return int(text)


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Load the settings that the arguments name, with `--host` and `--port` where they were given."""
    return load(arguments).settings


def load(arguments: argparse.Namespace) -> LoadedSettings:
    """Load the same, with where they came from."""
    given = {
        "gateway.host": getattr(arguments, "host", None),
        "gateway.port": getattr(arguments, "port", None),
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    return load_settings(arguments.settings, overrides=overrides)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Lay rows out under their heads; columns in `right` are set flush right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
