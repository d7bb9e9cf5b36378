"""Compares two runs of the same cases: the difference, its interval, and a verdict that may be "no evidence".

Cases are paired, so what they have in common (some are hard for everybody) drops out of the difference, and
clusters are respected as in `estimate`. A difference alone is never a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from trilith.extras import need
from trilith_evals import estimate
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
    `power`; None when there is none, or nothing is known of its spread."""
    detectable: float | None
    """Smallest difference that so many cases as here would show with `power`."""


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
    groups = estimate.grouped(differences, of)
    centre = math.fsum(differences) / len(differences)
    found = estimate.spread(list(groups.values()), centre)
    low = high = p = needed = detectable = None
    if found is not None and found.variance > 0:
        error = math.sqrt(found.variance)
        student = need("scipy.special", extra="evals")
        reach = float(student.stdtrit(found.degrees, 1 - alpha / 2)) * error
        low, high = centre - reach, centre + reach
        p = 2 * float(student.stdtr(found.degrees, -abs(centre) / error))
        detectable = _factor(alpha, power) * error
        needed = _needed(centre, found.variance, len(groups), alpha, power)
    elif (
        found is not None
    ):  # every difference is the same, which chance does too: the sign test says how often
        p = 1.0 if centre == 0 else min(1.0, 2 * 0.5 ** len(groups))
        if p < alpha or centre == 0:
            low = high = centre
    method = "paired cluster t" if len(groups) < len(both) else "paired t"
    return Comparison(
        difference=Estimate(centre, low, high, len(both), len(groups), method),
        p=p,
        verdict=_verdict(low, high, margin, higher_is_better=higher_is_better),
        unpaired=len(baseline.keys() ^ candidate.keys()),
        cases_needed=needed,
        detectable=detectable,
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Return p values adjusted for looking at several metrics or slices (Holm 1979), in their order."""
    order = sorted(range(len(ps)), key=lambda at: ps[at])
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, ps[at] * (len(ps) - rank)))
        adjusted[at] = largest
    return adjusted


def pass_at_k(successes: int, tries: int, k: int) -> float:
    """Return the chance that one of `k` tries succeeds, unbiased (Chen and others 2021).

    Raises:
        ValueError: fewer than `k` tries, or more successes than tries.
    """
    if not 0 <= successes <= tries or not 1 <= k <= tries:
        raise ValueError(f"{successes} successes in {tries} tries tell nothing of {k} tries")
    return 1.0 - math.comb(tries - successes, k) / math.comb(tries, k)


def _verdict(low: float | None, high: float | None, margin: float, *, higher_is_better: bool) -> Verdict:
    if low is None or high is None:
        return Verdict.NO_EVIDENCE
    if not higher_is_better:
        low, high = -high, -low
    if low > 0:
        return Verdict.BETTER
    return Verdict.WORSE if high < -margin else Verdict.NO_EVIDENCE


def _factor(alpha: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)


def _needed(difference: float, variance: float, groups: int, alpha: float, power: float) -> int | None:
    if difference == 0:
        return None
    return math.ceil(groups * variance * (_factor(alpha, power) / difference) ** 2)
