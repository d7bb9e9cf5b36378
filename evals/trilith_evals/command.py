"""`trilith eval`: runs suites, compares and shows runs, makes datasets; the verdict is the exit code."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from trilith.errors import TrilithError
from trilith_evals.commands import calibrate, compare, dataset, monitor, plan, report, run

_COULD_NOT_RUN = 3


class _Parser(argparse.ArgumentParser):
    """Leaves with 3 on wrong usage: 2 is an outcome of a run here, "no evidence either way"."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        # The parser above would complain about what is left over, and leave with 2.
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(_COULD_NOT_RUN, f"{self.prog}: {message}\n")


class EvalCommand:
    """The subcommand."""

    help = "judge models with a suite file; the exit code is the verdict"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        actions = parser.add_subparsers(dest="action", required=True, parser_class=_Parser)
        for action in (run, compare, report, calibrate, dataset, monitor, plan):
            action.configure(actions)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked for; the exit code is the verdict."""
        try:
            code: int = arguments.act(arguments)
        except TrilithError as error:
            from trilith_evals.output.telling import harmless

            told = "\n".join(map(harmless, f"trilith eval: {error}".splitlines()))
            print(told, file=sys.stderr)
            return _COULD_NOT_RUN
        return code


command = EvalCommand()
