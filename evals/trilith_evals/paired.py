"""What pairs say where t cannot: exact signs, Tango's interval, a bootstrap of two figures' difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

from trilith.extras import need
from trilith_evals import estimate
from trilith_evals.estimate import Estimate

FEW = 12
"""Up to so many clusters that differ at all, chance is counted out and not approximated."""

Pairs = Mapping[str, Sequence[tuple[Any, Any]]]
"""By case, its (truth, prediction) pairs; several where it was repeated."""


def sign_flip(sums: Sequence[float]) -> float:
    """Return the exact two-sided p value of sums that would be positive or negative by chance alike.

    Every way to turn the signs round is counted (Fisher 1935).

    Args:
        sums: What each cluster differs by, zeros left out; at most `FEW`.
    """
    seen = abs(math.fsum(sums)) - 1e-9 * max(map(abs, sums), default=0.0)
    ways = itertools.product((-1, 1), repeat=len(sums))
    hits = sum(abs(math.fsum(sign * s for sign, s in zip(way, sums, strict=True))) >= seen for way in ways)
    return float(hits / 2 ** len(sums))


def even_odds(gained: int, n: int) -> float:
    """Return the exact two-sided p of so many gains among `n` pairs that differ (McNemar's exact test)."""
    fewer = min(gained, n - gained)
    return float(min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n))


def tango(gained: int, lost: int, n: int, alpha: float) -> tuple[float, float]:
    """Return the score interval of the difference of two paired shares (Tango 1998).

    Unlike Student's t it has a width where no pair or only one differs, and keeps its level there.

    Args:
        gained: Pairs that only the second run got right.
        lost: Pairs that only the first run got right.
        n: All pairs.
        alpha: One less the level.
    """
    z = NormalDist().inv_cdf(1 - alpha / 2)
    centre = (gained - lost) / n

    def score(true: float) -> float:
        b = (2 * n - gained + lost) * true - gained - lost
        c = -lost * true * (1 - true)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * share + true * (1 - true))
        return (gained - lost - n * true) / math.sqrt(variance) if variance > 0 else 0.0

    def end(outer: float) -> float:
        inner = centre
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if abs(score(middle)) < z else (inner, middle)
        return inner

    return end(-1.0), end(1.0)


def figures_apart(
    figure: Callable[[Sequence[Any], Sequence[Any]], float],
    baseline: Pairs,
    candidate: Pairs,
    clusters: Mapping[str, Hashable],
    *,
    alpha: float = 0.05,
    seed: int = 0,
    resamples: int = estimate.RESAMPLES,
    weighted: estimate.Weighted | None = None,
) -> Estimate:
    """Return how far apart two runs' figures over all pairs are (R2, an area under a curve).

    Whole clusters of the cases of both runs are drawn, the same ones for both, so that what the runs have in
    common drops out; the differences' spread makes a t interval with one degree less than there are clusters.
    `weighted` is the same figure as a function of weights, and much faster (see `estimate.bootstrap`).

    Raises:
        ValueError: the figure is undefined for the pairs themselves.
    """
    numpy = need("numpy", extra="evals")
    both = [case for case in candidate if case in baseline]
    groups = list(estimate.grouped(both, [clusters.get(case, ("case", case)) for case in both]).values())

    def apart(cases: Sequence[str]) -> float:
        after = [pair for case in cases for pair in candidate[case]]
        before = [pair for case in cases for pair in baseline[case]]
        return figure([t for t, _ in after], [p for _, p in after]) - figure(
            [t for t, _ in before], [p for _, p in before]
        )

    value = apart(both)
    generator = numpy.random.default_rng(seed)
    drawn: list[float] = []
    resampled = resamples if len(groups) > 1 else 0
    if weighted is not None and resampled:
        of = [_weighed(weighted, run, groups) for run in (candidate, baseline)]
        drawn, resampled = estimate.draws(of, generator, resamples), 0
    for _ in range(resampled):
        cases = [
            case for group in generator.integers(len(groups), size=len(groups)) for case in groups[group]
        ]
        try:
            drawn.append(apart(cases))
        except ValueError:
            continue
    method = "paired cluster bootstrap" if len(groups) < len(both) else "paired bootstrap"
    if len(drawn) < 0.9 * resamples:
        return Estimate(value, None, None, len(both), len(groups), method)
    # The bootstrap's variance is that of a plain plug-in: too small by G - 1 over G.
    error = float(numpy.std(drawn)) * math.sqrt(len(groups) / (len(groups) - 1))
    degrees = len(groups) - 1
    reach = estimate.t_quantile(degrees, alpha) * error
    return Estimate(value, value - reach, value + reach, len(both), len(groups), method, error, degrees)


def _weighed(
    weighted: estimate.Weighted, run: Pairs, groups: Sequence[Sequence[str]]
) -> tuple[Callable[[Any], Any], list[int]]:
    """Return a run's figure as a function of its pairs' weights, with the group of each pair."""
    told = [(pair, number) for number, group in enumerate(groups) for case in group for pair in run[case]]
    return weighted([t for (t, _), _ in told], [p for (_, p), _ in told]), [number for _, number in told]
