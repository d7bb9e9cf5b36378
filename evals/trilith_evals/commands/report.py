"""`trilith eval report`: shows a recorded run again, or the rows that changed between two."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
    report = actions.add_parser(
        "report",
        help="show a recorded run again, or what changed between two",
        description="Show a run that --json has written. With --against, show which rows changed since "
        "another run. Exit code: 0 shown, 3 could not be read.",
    )
    report.add_argument("run", help="JSON of the run, or gateway:ID of one that was published")
    report.add_argument("--against", metavar="RUN", help="the run that is the measure, named the same way")
    report.add_argument("--html", type=Path, metavar="PATH", help="write a page (one HTML file)")
    report.add_argument("--markdown", type=Path, metavar="PATH", help="write Markdown, for a pull request")
    report.add_argument("--junit", type=Path, metavar="PATH", help="write JUnit XML of the run")
    report.add_argument("--github", action="store_true", help="append to the job's summary, and annotate")
    report.add_argument(
        "--no-content", action="store_true", help="keep inputs and answers out of the outputs"
    )
    report.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Show the run; showing a failed run is no failure."""
    from trilith_evals.output import form
    from trilith_evals.output.console import table
    from trilith_evals.published import report_of

    report = report_of(arguments.run)
    report = replace(report, content=report.content and not arguments.no_content)
    paths = {"html": arguments.html, "markdown": arguments.markdown}
    if arguments.against:
        try:
            _difference(arguments, report)
        except OSError as error:
            raise form.unwritable(error) from error
    else:
        if not (any(paths.values()) or arguments.junit):
            print(table(report))
        form.write(report, paths)
    form.write(report, {"junit": arguments.junit})
    if arguments.github:
        from trilith_evals.output.github import tell

        tell(report)
    return 0


def _difference(arguments: argparse.Namespace, report: Any) -> None:
    from trilith_evals import contest
    from trilith_evals.published import report_of, suites_of

    before = report_of(arguments.against)
    before = replace(before, content=before.content and not arguments.no_content)
    lines = contest.against(suites_of(arguments.against), suites_of(arguments.run))
    names = _names(arguments.against, arguments.run)
    if arguments.html:
        from trilith_evals.output.difference import write_difference

        write_difference(before, report, lines, names, arguments.html)
    if arguments.markdown:
        from trilith_evals.atomic import write
        from trilith_evals.output.markdown import differences

        write(arguments.markdown, differences(lines, names))
    if not (arguments.html or arguments.markdown):
        print(contest.table(lines))


def _names(before: str, after: str) -> tuple[str, str]:
    """Call the runs by their files' names, or by the paths where these are the same."""
    if Path(before).stem == Path(after).stem:
        return before, after
    return Path(before).stem, Path(after).stem
