"""Holds one recorded run against another: every metric compared, the verdicts corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trilith.errors import DataError
from trilith_evals.comparison import Comparison, Verdict, compare, holm
from trilith_evals.figure import brief
from trilith_evals.gate import Check, Outcome
from trilith_evals.recorded import RecordedSuite


@dataclass(frozen=True, slots=True)
class Line:
    """One metric of one suite."""

    suite: str
    metric: str
    comparison: Comparison
    check: Check
    changed: bool
    """Whether the dataset is not the same any more; what is compared are the cases of both."""
    slice: str = ""
    """Which cases it is about, such as `language=de`; empty for all of them."""


def against(
    baseline: Mapping[str, RecordedSuite],
    candidate: Mapping[str, RecordedSuite],
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
    min_coverage: float = 0.95,
) -> list[Line]:
    """Compare all metrics that both runs have.

    A metric fails where the candidate is worse beyond the margin, and passes where it is not worse by more
    than the margin, both beyond doubt; or, with a margin of 0, where it is better, or as good to the last
    score. Anything else is no evidence. P values are Holm's, over all metrics.

    Args:
        baseline: The run that is the measure.
        candidate: The run in question.
        margin: How much worse is no harm.
        alpha: Chance of a false alarm, over all metrics together.
        min_coverage: Smallest share of the cases that both must have scored.

    Raises:
        DataError: the runs have no metric in common.
    """
    pairs = [
        (suite, metric)
        for suite in candidate
        for metric in candidate[suite].metrics
        if suite in baseline and metric in baseline[suite].metrics
    ]
    if not pairs:
        raise DataError("the two runs have no metric in common; they are of other suites")
    found = [_compared(baseline[s], candidate[s], metric, alpha / len(pairs), margin) for s, metric in pairs]
    known = [at for at, one in enumerate(found) if one is not None and one.p is not None]
    adjusted = holm([found[at].p or 0.0 for at in known])  # type: ignore[union-attr]  # known ones
    for at, p in zip(known, adjusted, strict=True):
        if (one := found[at]) is not None:
            found[at] = replace(one, p=p)
    lines = []
    for (suite, metric), one in zip(pairs, found, strict=True):
        before, after = baseline[suite], candidate[suite]
        if one is None:
            raise DataError(f"suite {suite}: no case is scored by {metric} in both runs")
        covered = one.difference.n / max(before.metrics[metric].cases, after.metrics[metric].cases)
        check = _check(metric, one, margin, covered, min_coverage, up=after.metrics[metric].higher_is_better)
        lines.append(Line(suite, metric, one, check, before.digest != after.digest))
    return lines


def _compared(
    before: RecordedSuite, after: RecordedSuite, metric: str, alpha: float, margin: float
) -> Comparison | None:
    old, new = before.metrics[metric], after.metrics[metric]
    if not old.scores.keys() & new.scores.keys():
        return None
    of = {case: ("cluster", source) for case, source in {**before.clusters, **after.clusters}.items()}
    return compare(
        old.scores, new.scores, of or None, higher_is_better=new.higher_is_better, alpha=alpha, margin=margin
    )


def _check(
    metric: str, found: Comparison, margin: float, covered: float, min_coverage: float, *, up: bool
) -> Check:
    name = f"{metric} is not worse" + (f" by more than {margin:g}" if margin else "")
    if covered < min_coverage:
        said = f"only {found.difference.n} cases are scored in both runs, {covered:.0%} of them"
        return Check(name, metric, Outcome.COULD_NOT_RUN, said)
    low, high = found.difference.low, found.difference.high
    least = None if low is None or high is None else low if up else -high
    if found.verdict is Verdict.WORSE:
        outcome = Outcome.FAIL
    elif found.verdict is Verdict.BETTER or (least is not None and least >= -margin):
        outcome = Outcome.PASS
    else:
        outcome = Outcome.NO_EVIDENCE
    return Check(name, metric, outcome, _said(found))


def _said(found: Comparison) -> str:
    difference = found.difference
    text = f"{found.verdict.value}: {difference.value:+.3g}"
    if difference.low is not None and difference.high is not None:
        text += f" [{difference.low:+.3g}, {difference.high:+.3g}]"
    if found.p is not None:
        text += f", p {brief(found.p)}"
    text += f" over {difference.n} cases"
    if difference.clusters < difference.n:
        text += f" of {difference.clusters} sources"
    if found.verdict is Verdict.NO_EVIDENCE and found.cases_needed is not None:
        text += f"; {found.cases_needed:,} would decide a difference of this size"
    return text


def table(lines: Sequence[Line]) -> str:
    """Write the lines as text."""
    told = []
    for line in lines:
        changed = " (the dataset has changed)" if line.changed else ""
        told.append(
            f"{line.check.outcome.value:<13} {line.suite}: {line.check.name}: {line.check.message}{changed}"
        )
    return "\n".join(told)
