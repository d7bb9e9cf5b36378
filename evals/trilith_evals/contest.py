"""Holds one recorded run against another: every metric compared, the verdicts corrected for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trilith.errors import DataError, MissingExtra, SettingsError
from trilith_evals.comparison import (
    Comparison,
    Verdict,
    benjamini_hochberg,
    compare,
    compare_figures,
    holm,
    judged,
)
from trilith_evals.estimate import Estimate
from trilith_evals.figure import brief
from trilith_evals.gate import Check, Outcome
from trilith_evals.recorded import RecordedMetric, RecordedSuite, common, part
from trilith_evals.scorer import AnyScorer, SuiteMetric, build


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


Figures = Mapping[tuple[str, str], SuiteMetric]
"""By suite and metric, what makes a figure of truths and predictions."""

FEWEST = 20
"""A slice with fewer cases in both runs is not looked at: it could only be found worse by luck."""

_SMALLEST_P = 0.001
"""Smaller ones are not told apart, as a p value of 0.000 would promise what no test can."""


def figures_of(scorers: Mapping[str, Mapping[str, AnyScorer]]) -> Figures:
    """Return how figures over all pairs are made, by suite and metric, of each suite's scorers by metric."""
    return {
        (suite, metric): scorer
        for suite, by_metric in scorers.items()
        for metric, scorer in by_metric.items()
        if isinstance(scorer, SuiteMetric)
    }


def against(
    baseline: Mapping[str, RecordedSuite],
    candidate: Mapping[str, RecordedSuite],
    *,
    margin: float = 0.0,
    alpha: float = 0.05,
    min_coverage: float = 0.95,
    figures: Figures | None = None,
    adjusted: Literal["holm", "bh"] = "holm",
    strict: bool = True,
) -> list[Line]:
    """Compare all metrics that both runs have, over all cases and slice by slice.

    A metric fails where the candidate is worse beyond the margin, and passes where it is not worse by more
    than the margin, both beyond doubt; or, with a margin of 0, where it is better, or as good to the last
    score. Anything else is no evidence. P values are Holm's, over all metrics. Slices are a family of their
    own, to say where a change did harm; they are no part of the verdict unless a gate names them.

    Args:
        baseline: The run that is the measure.
        candidate: The run in question.
        margin: How much worse is no harm.
        alpha: Chance of a false alarm, over all metrics together, and over all slices together.
        min_coverage: Smallest share of the cases that both must have scored.
        figures: How figures over all pairs are made; built-in ones are known by their name.
        adjusted: What keeps the slices' alarms: holm, no false one; bh, a small share of false ones.
        strict: Whether a metric without any case scored in both runs is an error; else it has no line.

    Raises:
        DataError: the runs have no metric in common, or, if strict, a metric has no case in common.
    """
    pairs = [
        (suite, metric)
        for suite in candidate
        for metric in candidate[suite].metrics
        if suite in baseline and metric in baseline[suite].metrics
    ]
    if not pairs:
        raise DataError("the two runs have no metric in common; they are of other suites")
    share = alpha / len(pairs)
    found = [
        compared(baseline[s], candidate[s], metric, share, margin, figures=figures) for s, metric in pairs
    ]
    known = [at for at, one in enumerate(found) if one is not None and one.p is not None]
    corrected = holm([found[at].p or 0.0 for at in known])  # type: ignore[union-attr]  # known ones
    for at, p in zip(known, corrected, strict=True):
        if (one := found[at]) is not None:
            found[at] = replace(one, p=p)
    lines = []
    for (suite, metric), one in zip(pairs, found, strict=True):
        before, after = baseline[suite], candidate[suite]
        if one is None:
            if not strict:
                continue
            raise DataError(f"suite {suite}: no case is scored by {metric} in both runs")
        covered = share_covered(one, before, after, metric)
        check = _check(metric, one, margin, covered, min_coverage, up=upwards(after, metric, one))
        check = replace(check, message=check.message + changed(before, after))
        lines.append(Line(suite, metric, one, check, before.digest != after.digest))
    return lines + _slices(baseline, candidate, pairs, alpha, figures, adjusted)


def compared(
    before: RecordedSuite,
    after: RecordedSuite,
    metric: str,
    alpha: float,
    margin: float,
    *,
    power: float = 0.8,
    figures: Figures | None = None,
) -> Comparison | None:
    """Compare one metric; None when no case is scored in both runs, or the figure is undefined for those.

    A figure over the whole suite is compared as such where both runs have recorded truths and predictions
    and it is known how it is made; else by the losses of the cases.
    """
    before = common(before, after)
    old, new = before.metrics[metric], after.metrics[metric]
    clusters = {**before.clusters, **after.clusters}
    try:
        if new.over_suite and (figure := _figure(after, metric, old, new, figures)):
            return compare_figures(
                figure.value,
                old.pairs,
                new.pairs,
                clusters,
                higher_is_better=new.higher_is_better,
                alpha=alpha,
                margin=margin,
                power=power,
                weighted=getattr(figure, "weighted", None),
            )
        return compare(
            old.scores,
            new.scores,
            clusters,
            higher_is_better=new.higher_is_better and not new.over_suite,
            alpha=alpha,
            margin=margin,
            power=power,
        )
    except ValueError:
        return None


def share_covered(found: Comparison, before: RecordedSuite, after: RecordedSuite, metric: str) -> float:
    """Return which share of the cases of the larger run the comparison rests on."""
    return found.difference.n / max(before.metrics[metric].cases, after.metrics[metric].cases)


def changed(before: RecordedSuite, after: RecordedSuite) -> str:
    """Say that the dataset is another one, and how many cases have changed under their id; else nothing."""
    if before.digest == after.digest:
        return ""
    other = sum(after.prints.get(case, mark) != mark for case, mark in before.prints.items())
    more = f", {other} cases are no longer what they were" if other else ""
    return f"; the dataset has changed{more}: only the cases of both count"


def _figure(
    suite: RecordedSuite,
    metric: str,
    old: RecordedMetric,
    new: RecordedMetric,
    figures: Figures | None,
) -> SuiteMetric | None:
    if not old.pairs or not new.pairs:
        return None
    if figures and (suite.name, metric) in figures:
        return figures[suite.name, metric]
    try:
        scorer = build(metric, {})
    except (SettingsError, MissingExtra):
        return None
    if not isinstance(scorer, SuiteMetric) or new.value is None:
        return None
    # A scorer of the same name may have been another one, or had other params: it must give what was found.
    together = [pair for pairs in new.pairs.values() for pair in pairs]
    again = scorer.value([truth for truth, _ in together], [predicted for _, predicted in together])
    return scorer if math.isclose(again, new.value, rel_tol=1e-6, abs_tol=1e-9) else None


def upwards(suite: RecordedSuite, metric: str, found: Comparison) -> bool:
    """Say whether a positive difference is a better one; a comparison by losses turns that round."""
    told = suite.metrics[metric]
    by_loss = told.over_suite and "bootstrap" not in found.difference.method
    return told.higher_is_better and not by_loss


def verdict(found: Estimate, margin: float, *, up: bool) -> Verdict:
    """Return what a difference comes to by its interval."""
    return judged(found.low, found.high, margin, higher_is_better=up)


def _slices(
    baseline: Mapping[str, RecordedSuite],
    candidate: Mapping[str, RecordedSuite],
    pairs: Sequence[tuple[str, str]],
    alpha: float,
    figures: Figures | None,
    adjusted: Literal["holm", "bh"],
) -> list[Line]:
    found: list[tuple[str, str, str, Comparison]] = []
    for suite in dict.fromkeys(name for name, _ in pairs):
        before, after = baseline[suite], candidate[suite]
        for named in after.slices:
            old, new = part(before, named, after.tags), part(after, named, after.tags)
            for metric in (metric for name, metric in pairs if name == suite):
                if sum(case in old.metrics[metric].scores for case in new.metrics[metric].scores) < FEWEST:
                    continue
                one = compared(old, new, metric, alpha, 0.0, figures=figures)
                if one is not None and one.p is not None:
                    found.append((suite, metric, named, one))
    ps = (holm if adjusted == "holm" else benjamini_hochberg)([one.p or 0.0 for *_, one in found])
    lines = []
    for (suite, metric, named, one), p in zip(found, ps, strict=True):
        sure = replace(one, p=p) if p <= alpha else replace(one, p=p, verdict=Verdict.NO_EVIDENCE)
        outcome = {Verdict.WORSE: Outcome.FAIL, Verdict.BETTER: Outcome.PASS}.get(
            sure.verdict, Outcome.NO_EVIDENCE
        )
        check = Check(f"{metric} [{named}] is not worse", metric, outcome, said(sure))
        other = baseline[suite].digest != candidate[suite].digest
        lines.append(Line(suite, metric, sure, check, other, named))
    return lines


def _check(
    metric: str, found: Comparison, margin: float, covered: float, min_coverage: float, *, up: bool
) -> Check:
    name = f"{metric} is not worse" + (f" by more than {margin:g}" if margin else "")
    if covered < min_coverage:
        short = f"only {found.difference.n} cases are scored in both runs, {covered:.0%} of them"
        return Check(name, metric, Outcome.COULD_NOT_RUN, short)
    low, high = found.difference.low, found.difference.high
    least = None if low is None or high is None else low if up else -high
    if found.verdict is Verdict.WORSE:
        outcome = Outcome.FAIL
    elif found.verdict is Verdict.BETTER or (least is not None and least >= -margin):
        outcome = Outcome.PASS
    else:
        outcome = Outcome.NO_EVIDENCE
    return Check(name, metric, outcome, said(found))


def said(found: Comparison) -> str:
    """Say the verdict, the difference with its interval, what it rests on, and what it could have shown."""
    difference = found.difference
    text = f"{found.verdict.value}: {difference.value:+.3g}"
    if difference.low is not None and difference.high is not None:
        text += f" [{difference.low:+.3g}, {difference.high:+.3g}]"
    if found.p is not None:
        text += f", p {brief(found.p)}" if found.p >= _SMALLEST_P else f", p below {_SMALLEST_P:g}"
    text += f" over {difference.n} cases"
    if difference.clusters < difference.n:
        text += f" of {difference.clusters} sources"
    if found.detectable is not None:
        text += f", {brief(found.detectable)} detectable"
    if found.verdict is Verdict.NO_EVIDENCE and found.cases_needed is not None:
        text += f"; {found.cases_needed:,} would decide a difference of this size"
    return text


def table(lines: Sequence[Line]) -> str:
    """Write the lines as text: every metric, then the slices that got worse."""
    told = [
        f"{line.check.outcome.value:<13} {line.suite}: {line.check.name}: {line.check.message}"
        for line in lines
        if not line.slice
    ]
    slices = [line for line in lines if line.slice]
    worse = [line for line in slices if line.check.outcome is Outcome.FAIL]
    told += [
        f"worse slice   {line.suite}: {line.metric} [{line.slice}]: {line.check.message}" for line in worse
    ]
    if slices and not worse:
        told.append(f"no slice got worse beyond doubt, of {len(slices)} that were looked at")
    return "\n".join(told)
