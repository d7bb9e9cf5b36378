"""Evaluations under pytest: cases that record their answers, and the runner that judges them afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilith_evals import contest
from trilith_evals.case import Case, Output, as_output
from trilith_evals.dataset import Columns, from_rows, load
from trilith_evals.gate import Gate, Outcome, Threshold
from trilith_evals.means import Means
from trilith_evals.recorded import RecordedSuite
from trilith_evals.report import Report
from trilith_evals.runner import Suite, run_suite
from trilith_evals.scorer import AnyScorer, build, metric_name
from trilith_evals.suite import read_plans
from trilith_evals.target import Target
from trilith_evals.trial import spelled, tried


class EvalCase:
    """One case of a marked test, once: what the fixture `case` gives."""

    def __init__(self, case: Case, repeat: int, *, repeats: int, strict: bool) -> None:
        """Take the case; `strict` makes its test fail where the target does."""
        self.case = case
        self.repeat = repeat
        self.strict = strict
        self.label = case.id if repeats == 1 else f"{case.id}-{repeat + 1}"
        self.begun = False
        self.answer: Output | Exception | None = None
        self._began = 0.0

    @property
    def id(self) -> str:
        """Unique within the dataset."""
        return self.case.id

    @property
    def input(self) -> Any:
        """What to ask the target."""
        return self.case.input

    @property
    def expected(self) -> Any:
        """The right answer, or a list of right ones; None when none is known."""
        return self.case.expected

    @property
    def fields(self) -> Mapping[str, Any]:
        """The whole row of the dataset."""
        return self.case.fields

    @property
    def recorded(self) -> bool:
        """Whether there is an answer, or a failure."""
        return self.answer is not None

    def begin(self) -> None:
        """Start the clock of its latency."""
        self.begun, self.answer, self._began = True, None, time.perf_counter()

    def record(self, answer: Any) -> Output:
        """Keep the target's answer: whatever a callable target may return.

        Raises:
            TypeError: it is nothing of the kind.
        """
        output = as_output(answer)
        if not output.latency_s:
            output = replace(output, latency_s=time.perf_counter() - self._began)
        self.answer = output
        return output

    def fail(self, error: Exception) -> None:
        """Keep that the target gave no answer; one that was recorded stands."""
        if self.answer is None:
            self.answer = error


class _Playback:
    """A target that says what was recorded."""

    remote = False
    played_back = True
    """Latencies are those of the record."""

    def __init__(self, name: str, cases: Sequence[EvalCase]) -> None:
        self.name = name
        self._answers: dict[str, list[EvalCase]] = {}
        for case in cases:
            self._answers.setdefault(case.id, []).append(case)

    async def answer(self, case: Case) -> Output:
        found = self._answers[case.id].pop(0).answer
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise LookupError("no answer was recorded")
        return found

    async def aclose(self) -> None:
        pass


@dataclass
class Trial:
    """One marked test function."""

    suite: Suite
    """Its target is not used; the tests ask."""
    gates: Sequence[Gate] = ()
    """Spelled out; tried with those of all other functions."""
    before: RecordedSuite | None = None
    """The run that it is held against."""
    against: str = ""
    """What that one is called."""
    cases: list[EvalCase] = field(default_factory=list)

    def rename(self, name: str) -> None:
        """Call its suite otherwise, where another one has its name."""
        self.suite = replace(self.suite, name=name)

    @property
    def begun(self) -> bool:
        """Whether any of its tests ran."""
        return any(case.begun for case in self.cases)

    @property
    def left_out(self) -> int:
        """Tests that were not selected, were skipped, or were not reached."""
        return sum(not case.begun for case in self.cases)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says for all marked functions."""

    against: str = ""
    """A run to hold them against, where their marker names none."""
    runs: Path = Path(".trilith/evals/runs")
    """Where kept runs are."""
    cache: Path | None = None
    """Folder of the judges' answers by content."""
    max_cost_pico_usd: int | None = None
    """Most that the judges of one function may cost (10^-12 USD)."""


def trial(
    args: Sequence[Any], given: dict[str, Any], node: str, folder: Path, wishes: Wishes | None = None
) -> Trial:
    """Read a marker; paths count from the test file's folder.

    Raises:
        TypeError: an argument that the marker does not take.
        TrilithError: data, scorers or suite file are wrong.
    """
    if args:
        raise TypeError('trilith_eval takes keyword arguments only, such as data="cases.jsonl"')
    wishes = wishes or Wishes()
    strict, named = bool(given.pop("strict", False)), given.pop("against", None)
    if "suite" in given:
        suite, gates = _of_file(folder, wishes, **given)
    else:
        suite, gates = _of_marker(node.rpartition("::")[2], folder, **given)
        suite = replace(suite, means=_means(suite.means, wishes))
    before, against = _before(named or wishes.against, folder, wishes.runs, suite.name)
    if before is None and any(gate.against for gate in gates):
        raise ValueError(
            "a gate is against the run before, and there is none; name one by --eval-against or against="
        )
    cases = [
        EvalCase(case, repeat, repeats=suite.repeats, strict=strict)
        for repeat in range(suite.repeats)
        for case in suite.data.cases
    ]
    return Trial(suite, gates, before, against, cases)


def _before(named: Any, folder: Path, runs: Path, name: str) -> tuple[RecordedSuite | None, str]:
    """Return the run of that name: a file beside the test or from here, or one that was kept."""
    if not named:
        return None, ""
    from trilith_evals.shelf import Shelf

    beside = folder / named
    told = str(beside) if beside.is_file() else str(named)
    return Shelf(runs).find(told, [name])[name], str(named)


def _means(means: Means, wishes: Wishes) -> Means:
    if wishes.max_cost_pico_usd is not None:
        means = replace(means, max_cost_pico_usd=wishes.max_cost_pico_usd)
    return replace(means, cache=wishes.cache)


def _of_file(
    folder: Path, wishes: Wishes, *, suite: str, name: str | None = None
) -> tuple[Suite, list[Gate]]:
    plans = read_plans(folder / suite, [name] if name else ())
    if len(plans) != 1:
        names = ", ".join(plan.settings.name for plan in plans)
        raise ValueError(f"{suite} holds several suites, expected name= with one of {names}")
    (plan,) = plans
    # No journal: it would play back a target's answer of an earlier session in place of the one just given.
    return plan.suite(_target("pytest"), means=_means(plan.means(), wishes)), plan.gates


def _of_marker(
    called: str,
    folder: Path,
    *,
    data: Any,
    scorers: Sequence[str | AnyScorer],
    name: str | None = None,
    min: float | Mapping[str, float] | None = None,
    max: float | Mapping[str, float] | None = None,
    on: Any = "mean",
    thresholds: Sequence[Threshold] = (),
    gates: Sequence[Gate] = (),
    columns: Columns | None = None,
    limit: int | None = None,
    repeats: int = 1,
    min_coverage: float = 0.95,
    max_abstained: float = 0.2,
) -> tuple[Suite, list[Gate]]:
    made = [build(scorer, {}) if isinstance(scorer, str) else scorer for scorer in scorers]
    by_metric = {metric_name(scorer): scorer for scorer in made}
    if len(by_metric) < len(made):
        raise ValueError("two scorers make one metric, expected every metric once")
    lower, upper = _bounds("min", min, by_metric), _bounds("max", max, by_metric)
    wanted = [
        Threshold(metric, lower.get(metric), upper.get(metric), on)
        for metric in by_metric
        if metric in lower or metric in upper
    ]
    for metric in (*(threshold.metric for threshold in thresholds), *(gate.metric for gate in gates)):
        _known(metric, by_metric)
    found = (
        load(folder / data, columns, limit=limit)
        if isinstance(data, str | Path)
        else from_rows(data, columns, limit=limit)
    )
    suite = Suite(
        name=name or called,
        target=_target(called),
        data=found,
        scorers=by_metric,
        thresholds=(*wanted, *thresholds),
        min_coverage=min_coverage,
        max_abstained=max_abstained,
        repeats=repeats,
    )
    return suite, spelled(gates, found.cases)


def _bounds(
    name: str, given: float | Mapping[str, float] | None, metrics: Mapping[str, Any]
) -> Mapping[str, float]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        for metric in given:
            _known(metric, metrics)
        return given
    if len(metrics) != 1:
        first = next(iter(metrics), "exact")
        raise ValueError(
            f"{name} is {given:g} beside several metrics, expected such as {{{first!r}: {given:g}}}"
        )
    return dict.fromkeys(metrics, given)


def _known(metric: str, metrics: Mapping[str, Any]) -> None:
    if metric not in metrics:
        raise ValueError(f"{metric!r} is not measured here, expected one of {', '.join(metrics)}")


def _target(name: str) -> Target:
    return _Playback(name, ())


@dataclass(frozen=True)
class Judged:
    """What came of a session's evaluations."""

    report: Report
    partial: Mapping[str, tuple[int, int]]
    """Suites of which not all tests ran: how many did, and of how many. They are shown and not gated."""

    @classmethod
    def of(cls, trials: Sequence[Trial], *, content: bool) -> Judged:
        """Judge what was recorded."""
        started, clock = datetime.now(UTC), time.perf_counter()
        suites = [asyncio.run(run_suite(_ran(trial))) for trial in trials]
        whole = {trial.suite.name: trial for trial in trials if not trial.left_out}
        before = {name: trial.before for name, trial in whole.items() if trial.before is not None}
        judged = tried(
            suites,
            {name: trial.gates for name, trial in whole.items()},
            before,
            named=", ".join(sorted({whole[name].against for name in before})),
            min_coverage={name: trial.suite.min_coverage for name, trial in whole.items()},
            figures=contest.figures_of({name: trial.suite.scorers for name, trial in whole.items()}),
        )
        partial = {
            trial.suite.name: (len(trial.cases) - trial.left_out, len(trial.cases))
            for trial in trials
            if trial.left_out
        }
        report = Report(judged, started, time.perf_counter() - clock, content=content)
        return cls(report, partial)

    @property
    def failed(self) -> bool:
        """Whether a suite that ran whole came to anything but a pass."""
        return any(
            suite.outcome is not Outcome.PASS
            for suite in self.report.suites
            if suite.name not in self.partial
        )

    def lines(self) -> list[str]:
        """Return what the terminal shows."""
        from trilith_evals.output.console import table

        told = [
            f"{name}: {ran} of {all_} cases ran, so its checks do not count"
            for name, (ran, all_) in self.partial.items()
        ]
        return [*table(self.report).splitlines(), *told]


def _ran(trial: Trial) -> Suite:
    begun = [case for case in trial.cases if case.begun]
    ids = {case.id for case in begun}
    data = replace(trial.suite.data, cases=tuple(c for c in trial.suite.data.cases if c.id in ids))
    target = _Playback(trial.suite.target.name, [case for case in trial.cases if case.id in ids])
    return replace(trial.suite, target=target, data=data, concurrency=1)
