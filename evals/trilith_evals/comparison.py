"""Compares two runs of the same cases: the difference, its interval, and a verdict that may be "no evidence".

Cases are paired, so what they have in common (some are hard for everybody) drops out of the difference, and
clusters are respected as in `estimate`. A difference alone is never a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Any

from trilith.extras import need
from trilith_evals import estimate, paired
from trilith_evals.estimate import Estimate


class Verdict(StrEnum):
    """What the difference between two runs comes to."""

    BETTER = "better"
    WORSE = "worse"
    NO_EVIDENCE = "no evidence"
    """The interval of the difference holds zero (or the margin): too few cases to say, or nothing to say."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two runs."""

    difference: Estimate
    """Candidate less baseline, over the pairs."""
    p: float | None
    """Chance of a difference as large if there were none (two-sided); None when it cannot be said."""
    verdict: Verdict
    unpaired: int
    """Cases that only one of the runs has scored; they count in neither."""
    cases_needed: int | None
    """Independent cases (clusters, where there are any) at which a difference of this size would be seen with
    `power` (with a margin: would be told from the margin); None when there is none, or nothing is known of
    its spread."""
    detectable: float | None
    """Smallest difference that so many cases as here would show with `power`."""
    least_p: float = 0.0
    """Smallest p value (two-sided) that so few differing cases allow, by counting out chance (sign-flip)."""

    def tail(self, bound: float, *, above: bool) -> float | None:
        """Return the one-sided p value of the truth being on the other side of a bound.

        Args:
            bound: A difference.
            above: Whether the truth is to be shown above it; else below.
        """
        found = self.difference
        beyond = found.value > bound if above else found.value < bound
        if found.error == 0:
            return self.least_p / 2 if beyond else 1.0
        p = found.tail(bound, above=above)
        return None if p is None else max(p, self.least_p / 2) if beyond else p


def compare(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    clusters: Mapping[str, Hashable] | None = None,
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    margin: float = 0.0,
    power: float = 0.8,
) -> Comparison:
    """Compare two runs' scores of the same metric.

    Args:
        baseline: Scores by case; of several repeats of a case, their mean.
        candidate: The same of the other run.
        clusters: What each case came from; None: every case stands alone.
        higher_is_better: Which way is up.
        alpha: Chance of a false alarm that is accepted.
        margin: How much worse is still no harm (non-inferiority); worse is what is beyond it for sure.
        power: Chance of seeing a difference, for `cases_needed` and `detectable`.

    Raises:
        ValueError: no case is in both runs, or a parameter is out of its range.
    """
    if not 0 < alpha < 1 or not 0 < power < 1 or margin < 0:
        raise ValueError("alpha and power are shares between 0 and 1, and margin is at least 0")
    both = [case for case in candidate if case in baseline]
    if not both:
        raise ValueError("no case is scored in both runs; they are not of the same dataset")
    differences = [candidate[case] - baseline[case] for case in both]
    of = None if clusters is None else [clusters.get(case, ("case", case)) for case in both]
    groups = list(estimate.grouped(differences, of).values())
    centre = math.fsum(differences) / len(differences)
    found = estimate.spread(groups, centre)
    method = "paired cluster t" if len(groups) < len(both) else "paired t"
    low = high = p = error = degrees = None
    least = 0.0
    if found is not None:
        error, degrees = math.sqrt(found.variance), found.degrees
        least = _counted_out(groups)
        if error > 0:
            student = need("scipy.special", extra="evals")
            reach = estimate.t_quantile(degrees, alpha) * error
            low, high = centre - reach, centre + reach
            if _rare(baseline, candidate, both, groups):
                gained = sum(difference > 0 for difference in differences)
                lost = sum(difference < 0 for difference in differences)
                low, high = paired.tango(gained, lost, len(both), alpha)
                method = "score interval of pairs"
            p = max(2 * float(student.stdtr(degrees, -abs(centre) / error)), least)
            if p > alpha:  # an interval that leaves out zero would say more than can be known
                low, high = min(low, 0.0), max(high, 0.0)
        else:  # every difference is the same, which chance does too: the sign test says how often
            p = least
            if p < alpha or centre == 0:
                low = high = centre
    told = Estimate(centre, low, high, len(both), len(groups), method, error, degrees)
    unpaired = len(baseline.keys() ^ candidate.keys())
    return _comparison(told, p, unpaired, least, alpha, margin, power, higher_is_better=higher_is_better)


def compare_figures(
    figure: Callable[[Sequence[Any], Sequence[Any]], float],
    baseline: paired.Pairs,
    candidate: paired.Pairs,
    clusters: Mapping[str, Hashable] | None = None,
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    margin: float = 0.0,
    power: float = 0.8,
    weighted: estimate.Weighted | None = None,
) -> Comparison:
    """Compare two runs by a figure over all their pairs, which no single case has a part of.

    Args:
        figure: From truths and predictions to the figure.
        baseline: Pairs by case.
        candidate: The same of the other run.
        clusters: What each case came from; None: every case stands alone.
        higher_is_better: Which way is up.
        alpha: Chance of a false alarm that is accepted.
        margin: How much worse is still no harm.
        power: Chance of seeing a difference, for `cases_needed` and `detectable`.
        weighted: The same figure as a function of weights, where it has such a form; much faster.

    Raises:
        ValueError: no case is in both runs, or the figure is undefined for the cases of both.
    """
    if not any(case in baseline for case in candidate):
        raise ValueError("no case is scored in both runs; they are not of the same dataset")
    found = paired.figures_apart(figure, baseline, candidate, clusters or {}, alpha=alpha, weighted=weighted)
    p = None
    if found.error is not None:
        below = found.tail(0.0, above=found.value > 0)
        p = 1.0 if below is None else min(1.0, 2 * below)
    unpaired = len(baseline.keys() ^ candidate.keys())
    return _comparison(found, p, unpaired, 0.0, alpha, margin, power, higher_is_better=higher_is_better)


def _comparison(
    found: Estimate,
    p: float | None,
    unpaired: int,
    least: float,
    alpha: float,
    margin: float,
    power: float,
    *,
    higher_is_better: bool,
) -> Comparison:
    error = found.error or None
    distance = found.value if higher_is_better else -found.value
    return Comparison(
        difference=found,
        p=p,
        verdict=judged(found.low, found.high, margin, higher_is_better=higher_is_better),
        unpaired=unpaired,
        cases_needed=needed(found.clusters, error, distance + margin, alpha, power),
        detectable=detectable(error, alpha, power),
        least_p=least,
    )


def _counted_out(groups: Sequence[Sequence[float]]) -> float:
    """Return the sign-flip p value where few clusters differ at all, or all by the same; else 0."""
    sums = [total for group in groups if (total := math.fsum(group))]
    sizes = {round(abs(total), 12) for total in sums}
    if not sums:
        return 1.0
    if len(sizes) == 1:
        return paired.even_odds(sum(total > 0 for total in sums), len(sums))
    return paired.sign_flip(sums) if len(sums) <= min(paired.FEW, len(groups) - 1) else 0.0


def _rare(
    baseline: Mapping[str, float],
    candidate: Mapping[str, float],
    both: Sequence[str],
    groups: Sequence[Sequence[float]],
) -> bool:
    """Say whether these are unclustered right-or-wrong pairs of which few differ: there t is too sure."""
    apart = sum(baseline[case] != candidate[case] for case in both)
    return (
        len(groups) == len(both)
        and apart <= paired.FEW
        and all(run[case] in (0, 1) for run in (baseline, candidate) for case in both)
    )


def needed(groups: int, error: float | None, distance: float, alpha: float, power: float) -> int | None:
    """Return how many independent cases would tell a truth at this distance from the bound that matters.

    Args:
        groups: Independent cases (clusters) so far.
        error: Standard error with these.
        distance: Of the figure from the bound.
        alpha: Chance of a false alarm, two-sided.
        power: Chance of telling it.

    Returns:
        None when the distance is none, or nothing is known of the spread.
    """
    if not distance or not error:
        return None
    return math.ceil(groups * (error * _factor(alpha, power) / distance) ** 2)


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for looking at several metrics or slices (Holm 1979), in their order."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, ps[at] * (len(ps) - rank)))
        adjusted[at] = largest
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted so that, of what is found at a level, no larger share is false (1995)."""
    order = sorted(range(len(ps)), key=lambda at: -ps[at])
    adjusted, least = [0.0] * len(ps), 1.0
    for rank, at in enumerate(order):
        least = min(least, ps[at] * len(ps) / (len(ps) - rank))
        adjusted[at] = least
    return adjusted


def pass_at_k(successes: int, tries: int, k: int) -> float:
    """Return the chance that one of `k` tries succeeds, unbiased (Chen and others 2021).

    Raises:
        ValueError: fewer than `k` tries, or more successes than tries.
    """
    if not 0 <= successes <= tries or not 1 <= k <= tries:
        raise ValueError(f"{successes} successes in {tries} tries tell nothing of {k} tries")
    return 1.0 - math.comb(tries - successes, k) / math.comb(tries, k)


def pass_hat_k(successes: int, tries: int, k: int) -> float:
    """Return the chance that all of `k` tries succeed, unbiased (pass^k; Yao and others 2024, tau-bench).

    Raises:
        ValueError: fewer than `k` tries, or more successes than tries.
    """
    if not 0 <= successes <= tries or not 1 <= k <= tries:
        raise ValueError(f"{successes} successes in {tries} tries tell nothing of {k} tries")
    return math.comb(successes, k) / math.comb(tries, k)


def judged(low: float | None, high: float | None, margin: float, *, higher_is_better: bool) -> Verdict:
    """Return what the interval of a difference comes to."""
    if low is None or high is None:
        return Verdict.NO_EVIDENCE
    if not higher_is_better:
        low, high = -high, -low
    if low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if high < -margin else Verdict.NO_EVIDENCE


def detectable(error: float | None, alpha: float, power: float) -> float | None:
    """Return how far from a bound the truth must be for so many cases as here to tell it with `power`."""
    return _factor(alpha, power) * error if error else None


def _factor(alpha: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
