"""Estimates with their 95 % intervals: means of scores, and figures over whole suites.

Cases that share a cluster are not independent; every interval here takes that into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from trilith.extras import need

LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and how far it may be off."""

    value: float
    low: float | None
    """Lower end of the 95 % interval; None when there are too few cases to say."""
    high: float | None
    """Upper end of the 95 % interval; None when there are too few cases to say."""
    n: int
    """Rows that it rests on."""
    clusters: int
    """Independent groups among them; equal to `n` when nothing is clustered."""
    method: str
    """How the interval was made: wilson, t, cluster t, wilson on clusters, bootstrap, cluster bootstrap."""


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Return the mean of at least one score, with its interval.

    Scores that are all 0 or 1 take Wilson's interval (a t interval around 12 of 12 has no width);
    with clusters, Wilson on the number of independent cases that the clustered variance is worth.
    Other scores take a t interval, with clusters on the cluster-robust variance (CR1, G - 1 degrees).
    """
    n = len(values)
    centre = math.fsum(values) / n
    groups = _groups(values, clusters)
    robust = len(groups) < n
    variance = _variance_of_mean(groups, centre, n)
    if all(value in (0, 1) for value in values):
        low, high = wilson(centre, _effective(centre, variance, n, len(groups)) if robust else n)
        return Estimate(centre, low, high, n, len(groups), "wilson on clusters" if robust else "wilson")
    method = "cluster t" if robust else "t"
    if variance is None:
        return Estimate(centre, None, None, n, len(groups), method)
    reach = _t_quantile(len(groups) - 1) * math.sqrt(variance)
    return Estimate(centre, centre - reach, centre + reach, n, len(groups), method)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval around a share of `n` independent cases (n may be fractional)."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def bootstrap(
    figure: Callable[[Sequence[Any], Sequence[Any]], float],
    truths: Sequence[Any],
    predictions: Sequence[Any],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a figure over pairs with its percentile bootstrap interval; whole clusters are drawn.

    Resamples in which the figure is undefined are left out; when that is more than a tenth of them there
    is no interval.

    Raises:
        ValueError: the figure is undefined for the pairs themselves.
    """
    numpy = need("numpy", extra="evals")
    value = figure(truths, predictions)
    groups = list(_groups(range(len(truths)), clusters).values())
    method = "cluster bootstrap" if len(groups) < len(truths) else "bootstrap"
    generator = numpy.random.default_rng(seed)
    drawn: list[float] = []
    for _ in range(resamples if len(groups) > 1 else 0):
        rows = [row for group in generator.integers(len(groups), size=len(groups)) for row in groups[group]]
        try:
            drawn.append(figure([truths[r] for r in rows], [predictions[r] for r in rows]))
        except ValueError:
            continue
    low = high = None
    if drawn and len(drawn) >= 0.9 * resamples:
        low, high = (float(q) for q in numpy.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2]))
    return Estimate(value, low, high, len(truths), len(groups), method)


def _groups(values: Sequence[Any], clusters: Sequence[Hashable] | None) -> dict[Hashable, list[Any]]:
    groups: dict[Hashable, list[Any]] = {}
    for key, value in zip(range(len(values)) if clusters is None else clusters, values, strict=True):
        groups.setdefault(key, []).append(value)
    return groups


def _variance_of_mean(groups: dict[Hashable, list[Any]], centre: float, n: int) -> float | None:
    count = len(groups)
    if count < 2:
        return None
    sums = (math.fsum(value - centre for value in group) for group in groups.values())
    return count / (count - 1) * math.fsum(s * s for s in sums) / (n * n)


def _effective(share: float, variance: float | None, n: int, groups: int) -> float:
    """How many independent 0/1 cases would have this variance; the number of groups where it says nothing.

    The t quantile's surplus over the normal one is taken off, as a few groups know their variance badly.
    """
    if groups < 2 or not variance or share in (0, 1):
        return groups
    normal = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    worth = share * (1 - share) / variance * (normal / _t_quantile(groups - 1)) ** 2
    return min(float(n), worth)


def _t_quantile(degrees: int) -> float:
    return float(need("scipy.special", extra="evals").stdtrit(degrees, 0.5 + LEVEL / 2))
