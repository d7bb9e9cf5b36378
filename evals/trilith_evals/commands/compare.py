"""`trilith eval compare`: compares two runs of the same cases."""

from __future__ import annotations

import argparse
from typing import Any

from trilith_evals.commands.arguments import chance, size


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    compare = actions.add_parser(
        "compare",
        help="compare two runs of the same cases",
        description="Compare two runs that --json has written, case by case. Exit code: 0 nothing is "
        "worse, 1 something is, 2 no evidence either way, 3 could not be compared.",
    )
    compare.add_argument(
        "baseline", help="the run that is the measure: its JSON, or gateway:ID of one that was published"
    )
    compare.add_argument("candidate", help="the run in question, named the same way")
    compare.add_argument(
        "--margin",
        type=size,
        default=0.0,
        metavar="X",
        help="so much worse is no harm, in the metric's own unit (%(default)s)",
    )
    compare.add_argument(
        "--alpha",
        type=chance,
        default=0.05,
        metavar="X",
        help="chance of a false alarm, over all metrics together (%(default)s)",
    )
    compare.add_argument(
        "--slices",
        choices=("holm", "bh"),
        default="holm",
        help="what the list of worse slices keeps: holm, hardly ever a false one; bh, few false ones",
    )
    compare.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Compare the runs; the exit code is the verdict."""
    from trilith_evals import contest
    from trilith_evals.gate import worst
    from trilith_evals.published import suites_of

    lines = contest.against(
        suites_of(arguments.baseline),
        suites_of(arguments.candidate),
        margin=arguments.margin,
        alpha=arguments.alpha,
        adjusted=arguments.slices,
    )
    print(contest.table(lines))
    return worst(line.check.outcome for line in lines if not line.slice).exit_code
