"""`trilith eval run`: runs the suites in a file."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import TrilithError

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
    run.add_argument("--markdown", type=Path, metavar="PATH", help="write Markdown, for a pull request")
    run.add_argument(
        "--github",
        action="store_true",
        help="annotate, and append to the job's summary; by itself in a GitHub job",
    )
    run.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
    run.add_argument("--mlflow", metavar="URI", help="log figures and report to this MLflow tracking server")
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
        if arguments.markdown:
            from trilith_evals.output.markdown import write_markdown

            write_markdown(report, arguments.markdown)
        if arguments.github or os.environ.get("GITHUB_ACTIONS") == "true":
            from trilith_evals.output.github import append_summary, commands

            append_summary(report)
            print(commands(report, arguments.file))
    except OSError as error:
        raise TrilithError(
            f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}"
        ) from error
    if arguments.mlflow:
        from trilith_evals.output.mlflow_log import log

        log(report, arguments.mlflow)
