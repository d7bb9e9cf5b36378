"""`trilith eval run`: runs the suites in a file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import SettingsError, TrilithError

if TYPE_CHECKING:
    from trilith_evals.report import Report


def configure(actions: Any) -> None:
    """Add the action and its arguments."""
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
    run.add_argument("--mlflow", metavar="URI", help="log figures and report to this MLflow tracking server")
    run.add_argument(
        "--journal",
        type=Path,
        metavar="PATH",
        help="keep answers here, and go on from them; default .trilith/evals beside the file, until complete",
    )
    run.add_argument("--fresh", action="store_true", help="forget what the journal has")
    run.add_argument(
        "--max-cost", type=Decimal, metavar="USD", help="stop each suite before it costs more than this"
    )
    run.add_argument("--cache", type=Path, metavar="DIR", help="keep answers by content between runs")
    run.add_argument(
        "--no-content",
        action="store_true",
        help="keep inputs, answers and error messages out of the outputs",
    )
    run.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    """Run the suites; the exit code is the verdict."""
    report = asyncio.run(_judged(arguments))
    _written(report, arguments)
    return report.exit_code


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
    if arguments.journal and len(plans) > 1:
        raise SettingsError(f"--journal is one suite's, and the file has {len(plans)}; choose one by --suite")
    if arguments.max_cost is not None and not (arguments.max_cost.is_finite() and arguments.max_cost > 0):
        raise SettingsError(f"--max-cost is {arguments.max_cost}, expected US dollars above 0")
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
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
        means = replace(
            plan.means(arguments.max_cost),
            journal=arguments.journal,
            folder=arguments.file.parent / ".trilith" / "evals" / settings.name,
            fresh=arguments.fresh,
            cache=arguments.cache,
        )
        try:
            with Meter(settings.name) as progress, _interruptible(loop, stop):
                found.append(await run_suite(plan.suite(target, means), progress, stop=stop))
        finally:
            await target.aclose()
        if stop.is_set():
            break
    return Report(tuple(found), started, time.perf_counter() - clock, content=not arguments.no_content)


@contextlib.contextmanager
def _interruptible(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """Let Ctrl-C end the run with a report over what is done; a second one ends the process."""

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


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
