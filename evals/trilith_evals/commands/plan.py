"""`trilith eval plan`: how many cases would show a difference of a given size, from a run that is there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trilith_evals.commands.arguments import chance, step


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    plan = actions.add_parser(
        "plan",
        help="say how many cases a gate needs",
        description="Say how many cases would show a difference, from the spread of a pilot run that --json "
        "has written; of two such runs, also from how much the same cases differ between them.",
    )
    plan.add_argument("pilot", type=Path, help="JSON of a run")
    plan.add_argument("second", type=Path, nargs="?", help="JSON of another run of the same cases")
    plan.add_argument(
        "--difference",
        type=step,
        default=0.05,
        metavar="X",
        help="what must be seen, in the metric's own unit (%(default)s)",
    )
    plan.add_argument(
        "--alpha",
        type=chance,
        default=0.05,
        metavar="X",
        help="chance of an error, both sides together (%(default)s)",
    )
    plan.add_argument(
        "--power", type=chance, default=0.8, metavar="X", help="chance of seeing it (%(default)s)"
    )
    plan.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Print a line per metric and question."""
    from trilith_evals import recorded
    from trilith_evals.foresight import foreseen

    second = recorded.read(arguments.second) if arguments.second else None
    found = foreseen(
        recorded.read(arguments.pilot),
        second,
        difference=arguments.difference,
        alpha=arguments.alpha,
        power=arguments.power,
    )
    for line in found:
        print(line.text(arguments.difference))
    return 0
