"""`trilith eval monitor`: watches what production writes, and leaves with 1 when an alarm begins."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    monitor = actions.add_parser(
        "monitor",
        help="watch production: drift, performance, cost, alarms",
        description="Read what production has written since the last time, and look at every window whose "
        "time has come. Findings are JSON lines. Exit code: 0 nothing is wrong, 1 an incident is open, 2 too "
        "little to say, 3 could not run.",
    )
    monitor.add_argument("file", type=Path, help="monitor file, such as monitor.yaml")
    how = monitor.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="look once and leave (the default)")
    how.add_argument("--follow", action="store_true", help="look again and again, until interrupted")
    monitor.add_argument(
        "--every", type=_seconds, default=60.0, metavar="S", help="with --follow: rest (%(default)s s)"
    )
    monitor.add_argument(
        "--now",
        type=float,
        metavar="T",
        help="look as if it were this time (Unix seconds); default: the clock's",
    )
    monitor.add_argument("--all", action="store_true", help="print quiet findings too")
    monitor.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Look; the exit code says what there is."""
    import time

    from trilith_evals.online.watching import Watching

    watching = Watching.opened(arguments.file)
    code = 2
    try:
        while True:
            for finding in watching.look(arguments.now if arguments.now is not None else time.time()):
                watching.write(finding, quiet=arguments.all)
            code = watching.exit_code
            if not arguments.follow:
                return code
            time.sleep(arguments.every)
    except KeyboardInterrupt:
        return code


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value
