"""The pytest plugin: tests marked `trilith_eval` ask the target, and the runner judges what they recorded.

One test per case, one verdict per marked function at the session's end. Nothing is computed here: the
recorded answers are played back to the runner, so figures, gates and reports are the same as elsewhere. This
module imports next to nothing, as pytest loads it in sessions that hold no evaluation too.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trilith_evals.trialled import EvalCase, Trial, Wishes

_OPTIONS = {
    "html": "one HTML file",
    "json": "everything as JSON",
    "markdown": "Markdown",
    "junit": "JUnit XML",
}
_FAILED = 1
"""pytest's exit status for failed tests; its 2 is an interrupt, and no "no evidence"."""

_JUDGED: pytest.StashKey[Any] = pytest.StashKey()
_TRIALS: pytest.StashKey[dict[str, Trial]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--eval-html` and its kin."""
    group = parser.getgroup("trilith eval")
    for name, what in _OPTIONS.items():
        group.addoption(f"--eval-{name}", type=Path, metavar="PATH", help=f"write the evaluations as {what}")
    group.addoption("--eval-against", metavar="RUN", help="hold the evaluations against this run")
    group.addoption(
        "--eval-runs",
        type=Path,
        metavar="FOLDER",
        default=Path(".trilith/evals/runs"),
        help="where kept runs are (%(default)s)",
    )
    group.addoption(
        "--eval-max-cost", metavar="USD", help="stop the judges of each suite before they cost more than this"
    )
    group.addoption(
        "--eval-cache", type=Path, metavar="DIR", help="keep the judges' answers by content between runs"
    )
    group.addoption(
        "--eval-no-content",
        action="store_true",
        help="keep inputs and answers out of the evaluations' outputs",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "trilith_eval(suite=None, data=None, scorers=(), min=None, max=None, ...): one test per case through "
        "the fixture `case`; the verdict over all of them is passed at the session's end",
    )
    config.stash[_TRIALS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per case, and per repeat."""
    marker = metafunc.definition.get_closest_marker("trilith_eval")
    if marker is None:
        return
    if "case" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: expected an argument `case` beside trilith_eval"
        )
    if hasattr(metafunc.config, "workerinput"):
        raise pytest.UsageError("trilith_eval needs all cases in one process; run with -n0 or -p no:xdist")
    from trilith.errors import TrilithError
    from trilith_evals.trialled import trial

    node, trials = metafunc.definition.nodeid, metafunc.config.stash[_TRIALS]
    try:
        folder, wishes = metafunc.definition.path.parent, _wishes(metafunc.config)
        made = trial(marker.args, dict(marker.kwargs), node, folder, wishes)
    except (TrilithError, TypeError, ValueError) as error:
        raise pytest.UsageError(f"{node}: {error}") from error
    if any(other.suite.name == made.suite.name for other in trials.values()):
        made.rename(f"{made.suite.name} ({node})")  # reports and gates go by the name
    trials[node] = made
    metafunc.parametrize("case", made.cases, ids=[case.label for case in made.cases])


def _wishes(config: pytest.Config) -> Wishes:
    from argparse import ArgumentTypeError

    from trilith_evals.commands.arguments import usd
    from trilith_evals.trialled import Wishes

    told = config.getoption("--eval-max-cost")
    try:
        cap = None if told is None else usd(told)
    except ArgumentTypeError as error:
        raise pytest.UsageError(f"--eval-max-cost: {error}") from None
    against = config.getoption("--eval-against") or ""
    return Wishes(against, config.getoption("--eval-runs"), config.getoption("--eval-cache"), cap)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Run a marked test; what it returns is its answer, and what it raises is the case's failure."""
    if pyfuncitem.get_closest_marker("trilith_eval") is None:
        return None
    case: EvalCase = pyfuncitem.funcargs["case"]  # type: ignore[assignment]  # made in pytest_generate_tests
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    case.begin()
    try:
        returned = pyfuncitem.obj(**arguments)
        if inspect.iscoroutine(returned):
            import asyncio

            returned = asyncio.run(returned)
        if returned is not None:
            case.record(returned)
    except AssertionError:  # the test's own claim, and no fault of the target
        raise
    except Exception as error:
        if case.strict:
            case.fail(error)
            raise
        case.fail(error)
    if not case.recorded:
        pytest.fail("no answer was recorded; return it, or call case.record(answer)", pytrace=False)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge what was recorded, write the outputs, and let the verdict set the exit status."""
    trials = [trial for trial in session.config.stash[_TRIALS].values() if trial.begun]
    if not trials:
        return
    from trilith_evals.output.form import write
    from trilith_evals.trialled import Judged

    judged = Judged.of(trials, content=not session.config.getoption("--eval-no-content"))
    session.config.stash[_JUDGED] = judged
    write(judged.report, {name: session.config.getoption(f"--eval-{name}") for name in _OPTIONS})
    if session.exitstatus == 0 and judged.failed:
        session.exitstatus = _FAILED


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """Show figures and verdicts."""
    judged = config.stash.get(_JUDGED, None)
    if judged is not None:
        terminalreporter.section("trilith eval")
        for line in judged.lines():
            terminalreporter.write_line(line)
    return (yield)
