"""`trilith eval`: runs a suite file, or compares two runs, and leaves with the verdict as exit code."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from trilith.errors import TrilithError

if TYPE_CHECKING:
    from trilith_evals.report import Report

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
        run = actions.add_parser(
            "run",
            help="run the suites in a file",
            description="Run the suites in a file. Exit code: 0 pass, 1 fail, 2 no evidence either way, "
            "3 could not run (also for a wrong file).",
        )
        run.add_argument("file", type=Path, help="suite file, such as evals.yaml")
        run.add_argument(
            "--suite", action="append", default=[], metavar="NAME", help="only this suite; repeatable"
        )
        run.add_argument("--base-url", help="gateway or OpenAI-compatible server; default $TRILITH_BASE_URL")
        run.add_argument("--api-key", help="key for it; default $TRILITH_API_KEY")
        run.add_argument("--junit", type=Path, metavar="PATH", help="write JUnit XML")
        run.add_argument("--report", type=Path, metavar="PATH", help="write a report page (one HTML file)")
        run.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
        run.add_argument(
            "--mlflow", metavar="URI", help="log figures and report to this MLflow tracking server"
        )
        run.add_argument(
            "--no-content",
            action="store_true",
            help="keep inputs, answers and error messages out of the outputs",
        )
        run.set_defaults(act=_run)
        compare = actions.add_parser(
            "compare",
            help="compare two runs of the same cases",
            description="Compare two runs that --json has written, case by case. Exit code: 0 nothing is "
            "worse, 1 something is, 2 no evidence either way, 3 could not be compared.",
        )
        compare.add_argument("baseline", type=Path, help="JSON of the run that is the measure")
        compare.add_argument("candidate", type=Path, help="JSON of the run in question")
        compare.add_argument(
            "--margin",
            type=_share,
            default=0.0,
            metavar="X",
            help="so much worse is no harm, in the metric's own unit (%(default)s)",
        )
        compare.add_argument(
            "--alpha",
            type=_chance,
            default=0.05,
            metavar="X",
            help="chance of a false alarm, over all metrics together (%(default)s)",
        )
        compare.set_defaults(act=_compare)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do what was asked for; the exit code is the verdict."""
        try:
            code: int = arguments.act(arguments)
        except TrilithError as error:
            print(f"trilith eval: {error}", file=sys.stderr)
            return _COULD_NOT_RUN
        return code


command = EvalCommand()


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to below 1")
    return value


def _chance(text: str) -> float:
    value = _share(text)
    if not value:
        raise argparse.ArgumentTypeError("0 is not a number above 0 and below 1")
    return value


def _run(arguments: argparse.Namespace) -> int:
    report = asyncio.run(_judged(arguments))
    _written(report, arguments)
    return report.exit_code


def _compare(arguments: argparse.Namespace) -> int:
    from trilith_evals import contest, recorded
    from trilith_evals.gate import worst

    lines = contest.against(
        recorded.read(arguments.baseline),
        recorded.read(arguments.candidate),
        margin=arguments.margin,
        alpha=arguments.alpha,
    )
    print(contest.table(lines))
    return worst(line.check.outcome for line in lines).exit_code


async def _judged(arguments: argparse.Namespace) -> Report:
    import time
    from datetime import UTC, datetime

    from trilith import AsyncClient
    from trilith_evals.output.console import Meter
    from trilith_evals.report import Report
    from trilith_evals.runner import run_suite
    from trilith_evals.suite import read_plans
    from trilith_evals.target import ModelTarget

    plans = read_plans(arguments.file, arguments.suite)
    started, clock = datetime.now(UTC), time.perf_counter()
    found = []
    for plan in plans:
        settings = plan.settings
        client = AsyncClient(arguments.base_url, arguments.api_key, timeout_s=settings.timeout_s)
        target = ModelTarget(
            client,
            settings.target.model,
            task=settings.task,
            system=settings.system,
            parameters=settings.parameters,
        )
        try:
            with Meter(settings.name) as progress:
                found.append(await run_suite(plan.suite(target), progress))
        finally:
            await target.aclose()
    return Report(tuple(found), started, time.perf_counter() - clock, content=not arguments.no_content)


def _written(report: Report, arguments: argparse.Namespace) -> None:
    from trilith_evals.output.console import table

    print(table(report))
    try:
        if arguments.json:
            from trilith_evals.output.file import write_json

            write_json(report, arguments.json)
        if arguments.junit:
            from trilith_evals.output.junit import write_junit

            write_junit(report, arguments.junit)
        if arguments.report:
            from trilith_evals.output.page import write_page

            write_page(report, arguments.report)
    except OSError as error:
        raise TrilithError(
            f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}"
        ) from error
    if arguments.mlflow:
        from trilith_evals.output.mlflow_log import log

        log(report, arguments.mlflow)
