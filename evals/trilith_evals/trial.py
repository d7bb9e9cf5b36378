"""Tries the gates of a run: absolute ones and those against the run before, with one chance of a false alarm.

A gate fails only where the truth is surely on the wrong side. The p values of all these alarms, over every
suite of a run, are Holm's: an unchanged target is called bad in no more than `alpha` / 2 of all runs, however
many gates and slices there are. Passes need no correction: a run passes only when all of its gates do, so one
false gate must get through its own test (intersection-union, Berger 1982).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trilith_evals import comparison, contest, sequence
from trilith_evals.case import Case
from trilith_evals.comparison import Comparison
from trilith_evals.figure import Figure, brief
from trilith_evals.gate import Check, Gate, Outcome
from trilith_evals.recorded import RecordedSuite, part, taken
from trilith_evals.report import SuiteReport, suite_json
from trilith_evals.scorer import AnyScorer, BatchScorer, SuiteMetric


@dataclass(frozen=True, slots=True)
class _Tried:
    """One gate before the correction for how many there are."""

    gate: Gate
    message: str
    alarm: float | None = None
    """One-sided p value of "it is kept"; None when nothing can be said."""
    passed: bool = False
    settled: Outcome | None = None
    """What is known without any test."""
    needed: int | None = None


def tried(
    reports: Sequence[SuiteReport],
    gates: Mapping[str, Sequence[Gate]],
    baseline: Mapping[str, RecordedSuite] | None = None,
    *,
    named: str = "",
    margin: float = 0.0,
    min_coverage: Mapping[str, float] | None = None,
    figures: contest.Figures | None = None,
) -> tuple[SuiteReport, ...]:
    """Return the reports with the checks of their gates, and the comparison with the run before.

    Without any gate against the run before, every metric is compared, and must not be worse by more than
    `margin`; these checks are added then.

    Args:
        reports: The suites of one run.
        gates: By suite, `spelled` out.
        baseline: The run before, by suite; None for none.
        named: What it is called.
        margin: So much worse is no harm, where no gate says otherwise.
        min_coverage: By suite, the smallest share of the cases that both runs must have scored.
        figures: How figures over all pairs are made, by suite and metric.

    """
    recorded = {r.name: taken(suite_json(r, content=True)) for r in reports if not r.stopped}
    shared = {name: suite for name, suite in (baseline or {}).items() if name in recorded}
    least = min_coverage or {}
    lines = _lines(shared, recorded, margin, figures)
    checks = _checks(_all(reports, gates, shared, recorded, least, figures))
    return tuple(
        _told(report, gates, checks, lines, named if report.name in shared else "") for report in reports
    )


def decided(
    report: SuiteReport,
    gates: Sequence[Gate],
    before: RecordedSuite | None,
    *,
    planned_rows: int,
    of: int,
    figures: contest.Figures | None = None,
) -> bool:
    """Say whether a run may stop: one gate fails for sure, or every gate passes.

    Args:
        report: What has been found so far.
        gates: Of this suite.
        before: The run before.
        planned_rows: Rows that there would be at most.
        of: Gates in the whole run; an alarm is taken to be one among so many, as Holm would at worst.
        figures: As for `tried`.
    """
    report = replace(report, planned_rows=planned_rows)
    shared = {} if before is None else {report.name: before}
    recorded = {report.name: taken(suite_json(report, content=True))}
    found = [one for _, one in _all([report], {report.name: gates}, shared, recorded, {}, figures)]
    if any(one.alarm is not None and _share(one) * max(of, len(found)) <= 1 for one in found):
        return True
    return bool(found) and all(one.passed for one in found)


def refuse_early(scorers: Mapping[str, AnyScorer | None]) -> None:
    """Refuse to stop early by gates on scores that are only there at the end of a run.

    Raises:
        ValueError: one of the gates' scorers judges all cases at once, or there is no gate.
    """
    if not scorers:
        raise ValueError("stop_early needs gates to be decided, and there are none")
    for metric, scorer in scorers.items():
        if scorer is None or isinstance(scorer, BatchScorer | SuiteMetric):
            raise ValueError(f"stop_early cannot decide a gate on {metric!r}, which judges all cases at once")


def spelled(gates: Sequence[Gate], cases: Sequence[Case]) -> list[Gate]:
    """Return the gates with those that name only a tag made into one for each of its values."""
    found: list[Gate] = []
    for gate in gates:
        values = sorted({case.tags[gate.slice] for case in cases if gate.slice in case.tags})
        found += [replace(gate, slice=f"{gate.slice}={value}") for value in values] or [gate]
    return found


def _all(
    reports: Sequence[SuiteReport],
    gates: Mapping[str, Sequence[Gate]],
    shared: Mapping[str, RecordedSuite],
    recorded: Mapping[str, RecordedSuite],
    least: Mapping[str, float],
    figures: contest.Figures | None,
) -> list[tuple[str, _Tried]]:
    found: list[tuple[str, _Tried]] = []
    for report in reports:
        for gate in gates.get(report.name, ()) if not report.stopped else ():
            if not gate.against:
                found.append((report.name, _absolute(gate, report)))
                continue
            runs = shared.get(report.name), recorded[report.name]
            covered = least.get(report.name, 0.95)
            found.append((report.name, _against(gate, *runs, covered, figures, report.planned_rows)))
    return found


def _lines(
    shared: Mapping[str, RecordedSuite],
    recorded: Mapping[str, RecordedSuite],
    margin: float,
    figures: contest.Figures | None,
) -> list[contest.Line]:
    """Compare what can be compared: a run that is paid for is not lost for a metric that cannot."""
    if not any(
        metric in recorded[name].metrics for name, suite in shared.items() for metric in suite.metrics
    ):
        return []
    return contest.against(shared, recorded, margin=margin, figures=figures, strict=False)


def _told(
    report: SuiteReport,
    gates: Mapping[str, Sequence[Gate]],
    checks: Sequence[tuple[str, Check]],
    lines: Sequence[contest.Line],
    named: str,
) -> SuiteReport:
    own = [check for name, check in checks if name == report.name]
    # What a run that stopped when decided shows beside its gates must hold for many looks as well.
    of = tuple(line for line in lines if line.suite == report.name and not report.planned_rows)
    if not any(gate.against for gate in gates.get(report.name, ())):
        own += [line.check for line in of if not line.slice]
        if named and not of and not report.stopped:
            # A run that cannot be held against the one before must not pass for one that was.
            said = "no metric has a case that is scored in both runs"
            if report.planned_rows:
                said = "a run that may stop early is held against another one by its gates; none does so"
            own.append(Check(f"against {named}", "", Outcome.COULD_NOT_RUN, said))
    told = replace(report, checks=(*report.checks, *own), lines=of or report.lines, baseline=named)
    if not report.planned_rows:
        return told
    figures = tuple(_looked_at(figure, report.planned_rows) for figure in report.figures)
    slices = tuple(_looked_at(figure, report.planned_rows) for figure in report.slices)
    return replace(told, figures=figures, slices=slices)


def _looked_at(figure: Figure, planned_rows: int, alpha: float = 0.05) -> Figure:
    if figure.estimate is None:
        return figure
    return replace(figure, estimate=sequence.always_valid(figure.estimate, planned_rows, alpha))


def judged_against(
    gate: Gate, before: RecordedSuite, after: RecordedSuite, *, planned_rows: int = 0
) -> Check:
    """Return what one gate against the run before comes to, alone in its run.

    Args:
        gate: It.
        before: The run before.
        after: The run in question, or what there is of it so far.
        planned_rows: Rows that there would be at most, of a run that may stop when decided; 0 of any other.
    """
    ((_, check),) = _checks([(after.name, _against(gate, before, after, 0.0, None, planned_rows))])
    return check


def _absolute(gate: Gate, report: SuiteReport) -> _Tried:
    passes = (figure for one in report.repeated for figure in one.figures)
    figures = report.slices if gate.slice else (*report.figures, *passes)
    figure = next((f for f in figures if f.metric == gate.metric and f.slice == gate.slice), None)
    if figure is None:
        return _Tried(gate, f"no case is of {gate.slice}", settled=Outcome.COULD_NOT_RUN)
    if (short := _too_few(gate, figure.scored)) is not None:
        return short
    if report.planned_rows:
        figure = _looked_at(figure, report.planned_rows, gate.alpha)
    found = figure.estimate
    if found is None:
        return _Tried(gate, figure.problem or "no row was scored", settled=Outcome.NO_EVIDENCE)
    bounds = [(bound, up) for bound, up in ((gate.min, True), (gate.max, False)) if bound is not None]
    kept = [found.tail(bound, above=up) for bound, up in bounds]
    broken = [found.tail(bound, above=not up) for bound, up in bounds]
    nearest, _ = min(bounds, key=lambda at: abs(found.value - at[0]))
    error = found.spread_at(nearest)
    known = [p for p in broken if p is not None]
    return _Tried(
        gate,
        _figure_said(figure, gate, error),
        alarm=min(known) if known else None,
        passed=all(p is not None and p <= gate.alpha / 2 for p in kept),
        needed=comparison.needed(found.clusters, error, found.value - nearest, gate.alpha, gate.power),
    )


def _figure_said(figure: Figure, gate: Gate, error: float | None) -> str:
    found = figure.estimate
    assert found is not None  # the caller has looked
    text = f"{figure.text} over {found.n} rows"
    if found.clusters < found.n:
        text += f" of {found.clusters} sources"
    step = comparison.detectable(error, gate.alpha, gate.power)
    return text if step is None else f"{text}, {brief(step)} from the bound detectable"


def _against(
    gate: Gate,
    before: RecordedSuite | None,
    after: RecordedSuite,
    min_coverage: float,
    figures: contest.Figures | None,
    planned_rows: int = 0,
) -> _Tried:
    if before is None:
        return _Tried(gate, "no run to hold it against; add --against", settled=Outcome.COULD_NOT_RUN)
    if gate.metric not in after.metrics:
        return _Tried(gate, "too few repeats are scored", settled=Outcome.NO_EVIDENCE)
    if gate.metric not in before.metrics:
        return _Tried(gate, "the run before has no such metric", settled=Outcome.COULD_NOT_RUN)
    old, new = before, after
    if gate.slice:
        old, new = (part(suite, gate.slice, after.tags) for suite in (before, after))
    if (short := _too_few(gate, len(new.metrics[gate.metric].scores))) is not None:
        return short
    margin = gate.not_worse_by or 0.0
    found = contest.compared(old, new, gate.metric, gate.alpha, margin, power=gate.power, figures=figures)
    if found is None:
        said = "no case is scored in both runs, or the figure is undefined for those"
        return _Tried(gate, said, settled=Outcome.COULD_NOT_RUN)
    up = contest.upwards(after, gate.metric, found)
    if planned_rows:
        sure = sequence.always_valid(found.difference, planned_rows, gate.alpha)
        found = replace(found, difference=sure, verdict=contest.verdict(sure, margin, up=up))
    # A run that may stop when decided has not asked all that the run before has.
    runs = (after,) if planned_rows else (before, after)
    covered = found.difference.n / max(1, *(_cases(run, gate) for run in runs))
    if covered < min_coverage:
        said = f"only {found.difference.n} cases are scored in both runs, {covered:.0%} of them"
        said += contest.changed(before, after)
        return _Tried(gate, said, settled=Outcome.COULD_NOT_RUN)
    alarm = found.tail(-margin if up else margin, above=not up)
    return _Tried(
        gate,
        contest.said(found) + contest.changed(before, after),
        alarm=alarm,
        passed=_passed(gate, found, up=up),
        needed=found.cases_needed,
    )


def _passed(gate: Gate, found: Comparison, *, up: bool) -> bool:
    low, high = found.difference.low, found.difference.high
    if low is None or high is None:
        return False
    least = low if up else -high
    # As good to the last score is not worse, whatever chance could have done.
    return least > 0 if gate.better else least >= -(gate.not_worse_by or 0.0)


def _cases(suite: RecordedSuite, gate: Gate) -> int:
    """How many cases a run has that the gate is about; unscored ones count, as far as tags tell."""
    tag, _, value = gate.slice.partition("=")
    if not gate.slice:
        return suite.metrics[gate.metric].cases
    return sum(tags.get(tag) == value for tags in suite.tags.values())


def _too_few(gate: Gate, rows: int) -> _Tried | None:
    if not gate.slice or rows >= gate.min_rows:
        return None
    return _Tried(gate, f"{rows} scored rows, a slice needs {gate.min_rows}", settled=Outcome.NO_EVIDENCE)


def _checks(found: Sequence[tuple[str, _Tried]]) -> list[tuple[str, Check]]:
    """Correct the alarms for their number; each by its own alpha (weighted Holm)."""
    tests = [at for at, (_, one) in enumerate(found) if one.alarm is not None]
    order = sorted(tests, key=lambda at: _share(found[at][1]))
    largest, shares = 0.0, dict.fromkeys(range(len(found)), math.inf)
    for rank, at in enumerate(order):
        largest = max(largest, _share(found[at][1]) * (len(tests) - rank))
        shares[at] = largest
    checks = []
    for at, (suite, one) in enumerate(found):
        outcome, message = _outcome(one, failed=shares[at] <= 1), one.message
        if outcome is Outcome.NO_EVIDENCE and one.settled is None and "would decide" not in message:
            message += f"; {one.needed:,} independent cases would decide" if one.needed else ""
        checks.append((suite, Check(one.gate.text, one.gate.metric, outcome, message)))
    return checks


def _share(one: _Tried) -> float:
    """How much of its level an alarm uses up: 1 is all of it."""
    return (1.0 if one.alarm is None else one.alarm) / (one.gate.alpha / 2)


def _outcome(one: _Tried, *, failed: bool) -> Outcome:
    if one.settled is Outcome.COULD_NOT_RUN:
        return Outcome.COULD_NOT_RUN
    if one.settled is not None and one.gate.unproven == "pass":  # what was never tested passes nothing
        return one.settled
    if failed:
        return Outcome.FAIL
    return Outcome.PASS if one.passed else Outcome(one.gate.unproven)
