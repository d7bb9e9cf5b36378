"""The `trilith` command: finds its subcommands by entry point and imports only the one that runs.

A subcommand is an object with `help` (one line), `configure(parser)` and `run(arguments) -> int`,
named in the entry-point group `trilith.commands`; packages above this floor add theirs there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Protocol

from trilith.errors import TrilithError

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
        command: Command = commands[chosen].load()
        parser = argparse.ArgumentParser(prog=f"trilith {chosen}", description=command.help)
        command.configure(parser)
        return command.run(parser.parse_args(arguments[1:]))
    except TrilithError as error:
        print(f"trilith {chosen}: {error}", file=sys.stderr)
        return 2 if error.at_fault == "caller" else 3
    except KeyboardInterrupt:
        return 130


def _overview(commands: dict[str, EntryPoint]) -> str:
    rows = []
    for name in sorted(commands):
        loaded: Command = commands[name].load()
        rows.append(f"  {name:<10} {loaded.help}")
    return "\n".join(
        [
            "usage: trilith COMMAND [options]",
            "",
            *rows,
            "",
            "`trilith COMMAND --help` shows a command's options.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
