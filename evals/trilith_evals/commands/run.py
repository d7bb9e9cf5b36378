"""`trilith eval run`: runs the suites in a file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import SettingsError, TrilithError
from trilith_evals.commands.arguments import named, size, usd

if TYPE_CHECKING:
    from trilith_evals.gate import Gate
    from trilith_evals.recorded import RecordedSuite
    from trilith_evals.report import Report, SuiteReport
    from trilith_evals.runner import Decided
    from trilith_evals.suite import Plan


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
    _add_outputs(run.add_argument_group("what is written"))
    _add_baseline(run.add_argument_group("the run before"))
    _add_means(run.add_argument_group("money, time and what is kept"))
    run.set_defaults(act=act)


def _add_outputs(report: Any) -> None:
    report.add_argument("--junit", type=Path, metavar="PATH", help="write JUnit XML")
    report.add_argument("--report", type=Path, metavar="PATH", help="write a report page (one HTML file)")
    report.add_argument("--markdown", type=Path, metavar="PATH", help="write Markdown, for a pull request")
    report.add_argument(
        "--github",
        action="store_true",
        help="annotate, and append to the job's summary; by itself in a GitHub job",
    )
    report.add_argument("--json", type=Path, metavar="PATH", help="write everything as JSON")
    report.add_argument(
        "--mlflow", metavar="URI", help="log figures and report to this MLflow tracking server"
    )
    report.add_argument(
        "--publish",
        action="store_true",
        help="keep the run on the gateway (needs an admin key); a failure is told, the verdict stays",
    )
    report.add_argument(
        "--must-publish", action="store_true", help="the same; a run that is not kept could not run (3)"
    )
    report.add_argument(
        "--no-content",
        action="store_true",
        help="keep inputs, answers and error messages out of the outputs",
    )


def _add_baseline(baseline: Any) -> None:
    baseline.add_argument(
        "--against",
        type=named,
        metavar="RUN",
        help="hold the run against this one: a file that --json has written, a name of --save-as, a commit "
        "that git knows, or gateway:ID of one that was published",
    )
    baseline.add_argument(
        "--margin",
        type=size,
        default=0.0,
        metavar="X",
        help="with --against and no gate in the file: so much worse is no harm (%(default)s)",
    )
    baseline.add_argument(
        "--save-as",
        type=named,
        metavar="NAME",
        help="keep the run under this name for a later --against; HEAD keeps it under git's commit",
    )
    baseline.add_argument(
        "--runs",
        type=Path,
        default=Path(".trilith/evals/runs"),
        metavar="FOLDER",
        help="where kept runs are (%(default)s)",
    )


def _add_means(means: Any) -> None:
    means.add_argument(
        "--max-cost", type=usd, metavar="USD", help="stop each suite before it costs more than this"
    )
    means.add_argument(
        "--journal",
        type=Path,
        metavar="PATH",
        help="keep answers here, and go on from them; default .trilith/evals beside the file, until complete",
    )
    means.add_argument("--fresh", action="store_true", help="forget what the journal has")
    means.add_argument("--cache", type=Path, metavar="DIR", help="keep answers by content between runs")
    means.add_argument(
        "--executor", choices=("local", "ray"), help="where cases are run, in place of what the file says"
    )


def act(arguments: argparse.Namespace) -> int:
    """Run the suites; the exit code is the verdict."""
    report = asyncio.run(_judged(arguments))
    _written(report, arguments)
    if arguments.save_as:
        _kept(report, arguments)
    if arguments.publish or arguments.must_publish:
        _published(report, arguments)
    return report.exit_code


def _kept(report: Report, arguments: argparse.Namespace) -> None:
    from trilith_evals.shelf import Shelf

    if any(suite.stopped for suite in report.suites):
        said = f"not kept as {arguments.save_as}: the run was given up, and is no measure"
        print(f"trilith eval: {said}", file=sys.stderr)
        return
    kept = Shelf(arguments.runs, arguments.base_url, arguments.api_key).keep(report, arguments.save_as)
    print(f"kept as {arguments.save_as}: {', '.join(str(path) for path in kept)}")


def _published(report: Report, arguments: argparse.Namespace) -> None:
    """Upload the run. Its verdict is not the upload's, unless it must be kept."""
    from trilith_evals.published import PREFIX, publish

    try:
        print(f"published as {PREFIX}{publish(report, arguments.base_url, arguments.api_key)}")
    except TrilithError as error:
        told = f"the run was not published: {error}"
        if arguments.must_publish:
            raise TrilithError(told) from error
        print(f"trilith eval: {told}", file=sys.stderr)


async def _judged(arguments: argparse.Namespace) -> Report:
    import time
    from datetime import UTC, datetime

    from trilith_evals import contest
    from trilith_evals.report import Report
    from trilith_evals.suite import read_plans
    from trilith_evals.trial import tried

    plans = read_plans(arguments.file, arguments.suite)
    baseline = _before(plans, arguments)
    gates = {plan.settings.name: plan.gates for plan in plans}
    halt = asyncio.Event()
    started, clock = datetime.now(UTC), time.perf_counter()
    found = []
    for plan in plans:
        decided = _decided(plan, gates, baseline) if plan.settings.stop_early else None
        found.append(await _asked(plan, arguments, decided, halt))
        if halt.is_set():
            break
    judged = tried(
        found,
        gates,
        baseline,
        named=arguments.against or "",
        margin=arguments.margin,
        min_coverage={plan.settings.name: plan.settings.min_coverage for plan in plans},
        figures=contest.figures_of({plan.settings.name: plan.scorers for plan in plans}),
    )
    return Report(judged, started, time.perf_counter() - clock, content=not arguments.no_content)


def _before(plans: Sequence[Plan], arguments: argparse.Namespace) -> Mapping[str, RecordedSuite] | None:
    """Refuse what cannot come to a verdict before anything is paid for; return the run before, by suite."""
    from trilith_evals.shelf import Shelf

    if arguments.journal and len(plans) > 1:
        raise SettingsError(f"--journal is one suite's, and the file has {len(plans)}; choose one by --suite")
    for plan in plans:
        plan.refuse_unfit()
    shelf = Shelf(arguments.runs, arguments.base_url, arguments.api_key)
    if arguments.save_as:
        shelf.refuse_name(arguments.save_as)
    if arguments.against:
        return shelf.find(arguments.against, [plan.settings.name for plan in plans])
    for plan in plans:
        if any(gate.gate().against for gate in plan.settings.gates):
            raise SettingsError(
                f"suite {plan.settings.name} has a gate against the run before, and there is none; "
                "add --against main, or make one with --save-as main"
            )
    return None


def _decided(
    plan: Plan, gates: Mapping[str, Sequence[Gate]], baseline: Mapping[str, RecordedSuite] | None
) -> Decided:
    """Return what says whether a suite may stop, by its own gates and with all of the run's in mind."""
    from trilith_evals.trial import decided

    return functools.partial(
        decided,
        gates=gates[plan.settings.name],
        before=(baseline or {}).get(plan.settings.name),
        planned_rows=len(plan.data.cases) * plan.settings.repeats,
        of=sum(map(len, gates.values())),
    )


async def _asked(
    plan: Plan, arguments: argparse.Namespace, decided: Decided | None, halt: asyncio.Event
) -> SuiteReport:
    """Run one suite."""
    from trilith import AsyncClient
    from trilith_evals.output.console import Meter
    from trilith_evals.runner import run_suite
    from trilith_evals.scorer import connect
    from trilith_evals.target import ModelTarget

    settings = plan.settings
    connect(plan.scorers.values(), arguments.base_url, arguments.api_key)
    client = AsyncClient(arguments.base_url, arguments.api_key, timeout_s=settings.timeout_s)
    target = ModelTarget(
        client,
        settings.target.model,
        task=settings.task,
        system=settings.system,
        parameters=settings.parameters,
        release=settings.target.release,
        version=settings.target.version,
    )
    means = replace(
        plan.means(arguments.max_cost, arguments.executor),
        journal=arguments.journal,
        folder=arguments.file.parent / ".trilith" / "evals" / settings.name,
        fresh=arguments.fresh,
        cache=arguments.cache,
    )
    try:
        with Meter(settings.name) as progress, _interruptible(asyncio.get_running_loop(), halt):
            return await run_suite(plan.suite(target, decided, means), progress, stop=halt)
    finally:
        await target.aclose()


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
    from trilith_evals.output import form
    from trilith_evals.output.console import table

    print(table(report))
    paths = {"json": arguments.json, "junit": arguments.junit, "html": arguments.report}
    form.write(report, {**paths, "markdown": arguments.markdown})
    if arguments.github or os.environ.get("GITHUB_ACTIONS") == "true":
        from trilith_evals.output.github import tell

        tell(report, arguments.file)
    if arguments.mlflow:
        from trilith_evals.output.mlflow_log import log

        log(report, arguments.mlflow)
