"""Turns figures and thresholds into checks, and checks into one outcome and one exit code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from trilith_evals.figure import Figure, brief


class Outcome(StrEnum):
    """What a check, a suite or a whole run came to; in the order of the exit codes."""

    PASS = "pass"
    FAIL = "fail"
    NO_EVIDENCE = "no evidence"
    """Too few cases to say either."""
    COULD_NOT_RUN = "could not run"
    """The gateway, the network or the set-up was in the way; says nothing about the target."""

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 no evidence either way, 3 could not run."""
        return list(Outcome).index(self)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition on one metric; at least one of `min` and `max`."""

    metric: str
    min: float | None = None
    max: float | None = None
    on: Literal["mean", "interval"] = "mean"
    """mean: the figure itself must keep to it. interval: the whole 95 % interval must; when the threshold
    lies inside the interval there is no evidence either way.
    """

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ValueError(f"the threshold on {self.metric!r} has neither min nor max")

    @property
    def text(self) -> str:
        """For example `contains >= 0.5`."""
        parts = []
        if self.min is not None:
            parts.append(f"{self.metric} >= {self.min:g}")
        if self.max is not None:
            parts.append(f"{self.metric} <= {self.max:g}")
        return " and ".join(parts) + (" (95 % interval)" if self.on == "interval" else "")


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition with a known chance of a false alarm: absolute, or against the run before.

    A gate fails only where a test says so, with all gates of a run sharing one chance of a false alarm
    (`trial`); it passes where its own test says so; anything else is no evidence.
    """

    metric: str
    min: float | None = None
    """Smallest value of the metric."""
    max: float | None = None
    """Largest value of the metric."""
    not_worse_by: float | None = None
    """So much worse than the run before is no harm, in the metric's unit (non-inferiority)."""
    better: bool = False
    """Must be better than the run before (superiority)."""
    slice: str = ""
    """Only these cases: `language=de`; `language` makes a gate of each of its values. Empty: all cases."""
    alpha: float = 0.05
    """Chance of an error, both sides together: tests are at half of it, intervals at one less it."""
    power: float = 0.8
    """Chance of telling a difference, for what is said about the cases needed."""
    min_rows: int = 20
    """A slice with fewer scored rows is no evidence either way."""
    unproven: Literal["no evidence", "pass", "fail"] = "no evidence"
    """What it counts as when neither test says anything. pass: only what is surely bad stops a change;
    what was not tested at all (a slice with too few rows, no scored row) is no evidence even so."""

    def __post_init__(self) -> None:
        kinds = (self.min is not None or self.max is not None, self.not_worse_by is not None, self.better)
        if sum(kinds) != 1:
            raise ValueError(f"the gate on {self.metric!r} needs min and max, or not_worse_by, or better")
        if not 0 < self.alpha < 1 or not 0 < self.power < 1:
            raise ValueError(f"the gate on {self.metric!r}: alpha and power are shares between 0 and 1")
        if self.not_worse_by is not None and self.not_worse_by < 0:
            raise ValueError(f"the gate on {self.metric!r}: not_worse_by is {self.not_worse_by}, not below 0")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the gate on {self.metric!r}: min is above max")

    @property
    def against(self) -> bool:
        """Whether it needs a run before."""
        return self.better or self.not_worse_by is not None

    @property
    def text(self) -> str:
        """For example `exact [language=de] is not worse by more than 0.02`."""
        name = f"{self.metric} [{self.slice}]" if self.slice else self.metric
        if self.better:
            return f"{name} is better"
        if self.not_worse_by is not None:
            return f"{name} is not worse by more than {self.not_worse_by:g}"
        parts = [f"{name} >= {self.min:g}"] if self.min is not None else []
        parts += [f"{name} <= {self.max:g}"] if self.max is not None else []
        return " and ".join(parts) + f" (tested at {self.alpha:g})"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition and what came of it."""

    name: str
    metric: str
    outcome: Outcome
    message: str
    """What was found, in one line."""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return what counts among several: a failure, else what could not run, else missing evidence.

    A failure is first because it stands whatever the rest would have said. Nothing at all is a pass.
    """
    found = set(outcomes)
    order = (Outcome.FAIL, Outcome.COULD_NOT_RUN, Outcome.NO_EVIDENCE)
    return next((outcome for outcome in order if outcome in found), Outcome.PASS)


def refuse_intervals(thresholds: Iterable[Threshold]) -> None:
    """Refuse thresholds on intervals in a run that may stop when decided.

    Raises:
        ValueError: a threshold is on the interval, which holds for one look only.
    """
    for threshold in thresholds:
        if threshold.on == "interval":
            bounds = {"min": threshold.min, "max": threshold.max}
            said = ", ".join(f"{name}: {bound:g}" for name, bound in bounds.items() if bound is not None)
            raise ValueError(
                f"the threshold {threshold.text!r} is on an interval that holds for one look only, and "
                f"stop_early looks many times; make it a gate: {{metric: {threshold.metric}, {said}}}"
            )


def judge(
    figures: Sequence[Figure],
    thresholds: Sequence[Threshold],
    *,
    min_coverage: float,
    max_abstained: float,
    stopped: str = "",
) -> tuple[Check, ...]:
    """Check the coverage of every figure, and every threshold; met coverages become one check.

    Args:
        figures: One per metric.
        thresholds: On these metrics.
        min_coverage: Smallest share of rows that must be scored or abstained, for every metric.
        max_abstained: Largest share of rows on which a scorer may abstain.
        stopped: Why the run was given up; empty when it ran to its end.
    """
    if stopped:
        return (Check("run", "", Outcome.COULD_NOT_RUN, stopped),)
    by_name = {figure.metric: figure for figure in figures}
    covered = [_coverage(figure, min_coverage, max_abstained) for figure in figures]
    short = [check for check in covered if check.outcome is not Outcome.PASS]
    if not short:
        least = min(figures, key=lambda figure: figure.coverage)
        found = f"at least {least.scored + least.abstained} of {least.total} rows for every metric"
        if least.bounds:
            low, high = (brief(bound) for bound in least.bounds)
            found += f"; with the unscored ones {least.metric} lies from {low} to {high}"
        short = [Check(f"coverage >= {min_coverage:g}", "", Outcome.PASS, found)]
    return (*short, *(_threshold(by_name[t.metric], t) for t in thresholds))


def _coverage(figure: Figure, min_coverage: float, max_abstained: float) -> Check:
    name = f"{figure.metric} coverage >= {min_coverage:g}"
    why = ", ".join(f"{reason} ({n})" for reason, n in figure.reasons.items())
    found = f"{figure.scored + figure.abstained} of {figure.total} rows; unscored: {why or 'none'}"
    if figure.bounds:
        found += (
            f"; the mean lies from {brief(figure.bounds[0])} to {brief(figure.bounds[1])} whatever they are"
        )
    if figure.coverage < min_coverage:
        covered = figure.scored + figure.abstained + figure.infrastructure
        blameless = covered >= min_coverage * figure.total
        outcome = Outcome.COULD_NOT_RUN if blameless else Outcome.FAIL
        return Check(name, figure.metric, outcome, found)
    if figure.abstained > max_abstained * figure.total:
        found = f"abstained on {figure.abstained} of {figure.total} rows, at most {max_abstained:.0%} may be"
        return Check(name, figure.metric, Outcome.FAIL, found)
    return Check(name, figure.metric, Outcome.PASS, found)


def _threshold(figure: Figure, threshold: Threshold) -> Check:
    estimate = figure.estimate
    if estimate is None:
        why = figure.problem or "no row was scored"
        return Check(threshold.text, figure.metric, Outcome.NO_EVIDENCE, why)
    if threshold.on == "mean":
        kept = _within(estimate.value, threshold)
        outcome = Outcome.PASS if kept else Outcome.FAIL
    elif estimate.low is None or estimate.high is None:
        outcome = Outcome.NO_EVIDENCE
    elif _within(estimate.low, threshold) and _within(estimate.high, threshold):
        outcome = Outcome.PASS
    elif _beyond(estimate.low, estimate.high, threshold):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.NO_EVIDENCE
    return Check(threshold.text, figure.metric, outcome, f"{figure.text} over {estimate.n} rows")


def _within(value: float, threshold: Threshold) -> bool:
    above = threshold.min is None or value >= threshold.min
    below = threshold.max is None or value <= threshold.max
    return above and below


def _beyond(low: float, high: float, threshold: Threshold) -> bool:
    too_low = threshold.min is not None and high < threshold.min
    too_high = threshold.max is not None and low > threshold.max
    return too_low or too_high
