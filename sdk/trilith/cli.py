"""The `trilith` command: finds its subcommands by entry point and imports only the one that runs.

A subcommand is an object with `help` (one line), `configure(parser)` and `run(arguments) -> int`,
named in the entry-point group `trilith.commands`; packages above this floor add theirs there.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points, version
from typing import Protocol

from trilith.errors import MissingExtra, TrilithError

GROUP = "trilith.commands"


class Command(Protocol):
    """One subcommand."""

    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work and return the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0 done, 1 the work's own verdict is no, 2 wrong usage or settings, 3 could not run, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {point.name: point for point in entry_points(group=GROUP)}
    chosen = arguments[0] if arguments else ""
    if chosen == "--version":
        print(f"trilith {version('trilith')}")
        return 0
    if chosen in ("", "-h", "--help"):
        print(_overview(commands))
        return 0
    if chosen not in commands:
        print(
            f"trilith: {chosen!r} is not a command; expected one of {', '.join(sorted(commands))}",
            file=sys.stderr,
        )
        return 2
    try:
        return _run(commands[chosen], arguments[1:])
    except TrilithError as error:
        print(f"trilith {chosen}: {error}", file=sys.stderr)
        return 2 if error.at_fault == "caller" else 3
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `trilith traces | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        return 128 + 13
    except (OSError, sqlite3.Error) as error:  # a full disk, a folder that is not ours, a damaged database
        print(f"trilith {chosen}: {_in_words(error)}", file=sys.stderr)
        return 3


def _run(point: EntryPoint, arguments: Sequence[str]) -> int:
    try:
        command: Command = point.load()
        parser = argparse.ArgumentParser(prog=f"trilith {point.name}", description=command.help)
        command.configure(parser)
        code = command.run(parser.parse_args(arguments))
        sys.stdout.flush()
        return code
    except ModuleNotFoundError as error:
        if isinstance(error, TrilithError) or (cure := _cure(error)) is None:
            raise
        raise MissingExtra(cure) from error


def _cure(error: ModuleNotFoundError) -> str | None:
    """Say which extra brings the module that a part of ours lacks; None where the fault is not that."""
    part, trace = "", error.__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        part = package.removeprefix("trilith_") if package.startswith("trilith_") else part
        trace = trace.tb_next
    if not part or error.name is None or error.name.startswith("trilith"):
        return None
    return f"{error.name} is not installed; it comes with: pip install 'trilith[{part}]'"


def _in_words(error: OSError | sqlite3.Error) -> str:
    """Say what the system refused, and for which file."""
    if isinstance(error, sqlite3.Error):
        return f"the database in the platform's `home` cannot be used: {error}"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{(error.strerror or str(error)).lower()}"


def _overview(commands: dict[str, EntryPoint]) -> str:
    rows = []
    for name in sorted(commands):
        try:
            loaded: Command = commands[name].load()
            rows.append(f"  {name:<10} {loaded.help}")
        except ModuleNotFoundError as error:
            if (cure := _cure(error)) is None:
                raise
            rows.append(f"  {name:<10} ({cure.partition('; it comes with: ')[2]})")
    return "\n".join(
        [
            "usage: trilith COMMAND [options]",
            "",
            *rows,
            "",
            "`trilith COMMAND --help` shows a command's options.",
        ]
    )


def moment(text: str) -> datetime:
    """Read an argument that is a time: ISO 8601, UTC where it says no zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time, expected one such as 2026-11-01T08:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
