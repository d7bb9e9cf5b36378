"""Estimates with their 95 % intervals: means of scores, and figures over whole suites.

Cases that share a cluster are not independent; every interval here takes that into account.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

from trilith.extras import need

LEVEL = 0.95
RESAMPLES = 1000
Weighted: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Callable[[Any], Any]]
"""From truths and predictions to a figure of them as a function of weights `(resamples, rows)`."""


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
    error: float | None = None
    """Standard error; None where `worth` says it, or nothing does."""
    degrees: float | None = None
    """Of freedom behind `error`."""
    worth: float | None = None
    """For a share: how many independent cases its interval is that of."""
    tuned: float | None = None
    """Of an always-valid interval (`sequence`): how it is tuned; None: the interval holds for one look."""

    def tail(self, bound: float, *, above: bool) -> float | None:
        """Return the one-sided p value of "the truth lies on the other side of this bound".

        A share is tested as Wilson's interval does it (score test), anything else by Student's t.

        Args:
            bound: Where the truth might be.
            above: Whether the figure is to be shown above the bound; else below.

        Returns:
            None when nothing is known of the spread, or there is none.
        """
        away = (self.value - bound) if above else (bound - self.value)
        if self.tuned is not None and self.error:
            return min(1.0, sequence_tail(away / self.error, self.tuned)) if away > 0 else 1.0
        if self.worth is not None:
            if not 0 < bound < 1:
                return 0.0 if away > 0 else 1.0
            return NormalDist().cdf(-away / math.sqrt(bound * (1 - bound) / self.worth))
        if not self.error or self.degrees is None:
            return None
        return float(need("scipy.special", extra="evals").stdtr(self.degrees, -away / self.error))

    def spread_at(self, bound: float) -> float | None:
        """Return the standard error, for a share the one that it has at the bound; None when unknown."""
        if self.worth is not None:
            share = bound if 0 < bound < 1 else self.value
            return math.sqrt(share * (1 - share) / self.worth) or None
        return self.error or None


def mean(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Estimate:
    """Return the mean of at least one score, with its interval.

    Scores that are all 0 or 1 take Wilson's interval (a t interval around 12 of 12 has no width);
    with clusters, Wilson on the number of independent cases that the clustered variance is worth.
    Other scores take a t interval, with clusters on the cluster-robust variance (`spread`).
    """
    n = len(values)
    centre = math.fsum(values) / n
    groups = grouped(values, clusters)
    robust = len(groups) < n
    if all(value in (0, 1) for value in values):
        worth = independent(list(groups.values()))
        low, high = wilson(centre, worth)
        method = "wilson on clusters" if robust else "wilson"
        return Estimate(centre, low, high, n, len(groups), method, worth=worth)
    found = spread(list(groups.values()), centre)
    method = "cluster t" if robust else "t"
    if found is None:
        return Estimate(centre, None, None, n, len(groups), method)
    error = math.sqrt(found.variance)
    reach = t_quantile(found.degrees) * error
    return Estimate(centre, centre - reach, centre + reach, n, len(groups), method, error, found.degrees)


def sequence_tail(away: float, tuned: float) -> float:
    """Return the one-sided always-valid p value of so many standard errors (see `sequence`)."""
    return 0.5 * math.sqrt(tuned + 1) * math.exp(-away * away * tuned / (2 * (tuned + 1)))


def whatever(values: Sequence[float], missing: int) -> tuple[float, float] | None:
    """Return the mean if all missing scores were 0, and if all were 1 (Manski's bounds).

    None where a score lies outside 0 to 1, as then nobody knows the worst and the best.
    """
    if not all(0 <= value <= 1 for value in values):
        return None
    total, n = math.fsum(values), len(values) + missing
    return total / n, (total + missing) / n


@dataclass(frozen=True, slots=True)
class Spread:
    """How well a mean is known."""

    variance: float
    """Of the mean."""
    degrees: float
    """Of freedom, for Student's t."""


def spread(groups: Sequence[Sequence[float]], centre: float, *, alike: float | None = None) -> Spread | None:
    """Return the cluster-robust variance of a mean, and its degrees of freedom; None for one cluster.

    Few clusters of different sizes know their variance badly, and the usual sandwich (CR1 with G - 1
    degrees) is then too narrow. This is CR2 with Satterthwaite's degrees (Bell and McCaffrey 2002,
    Pustejovsky and Tipton 2018) for a regression on a constant, where matrices become sums.

    Args:
        groups: The scores of each cluster.
        centre: The mean of all scores.
        alike: How much scores of a cluster correlate in the working model, behind the degrees; None: as much
            as they are seen to.
    """
    if len(groups) < 2:
        return None
    n = sum(map(len, groups))
    share = correlation(groups, centre) if alike is None else alike
    a = b = c = diagonal = squared = crossed = 0.0
    rows = [(len(group), 1 / (1 - len(group) / n)) for group in groups]
    spreads = [size * (1 - share) + share * size * size for size, _ in rows]
    total = math.fsum(spreads)
    for (size, weight), v in zip(rows, spreads, strict=True):
        a += weight * v * v
        b += weight * size * size
        c += weight * v * size
        own = 2 * v * size / n - total * size * size / (n * n)
        diagonal += weight * (v - own)
        squared += weight * weight * v * v
        crossed += weight * weight * v * own
    shared = 2 * (a * b + c * c) / n**2 - 4 * total * c * b / n**3 + (total * b) ** 2 / n**4
    degrees = diagonal * diagonal / (squared - 2 * crossed + shared)
    sums = (math.fsum(value - centre for value in group) for group in groups)
    variance = math.fsum(weight * s * s for s, (_, weight) in zip(sums, rows, strict=True)) / (n * n)
    return Spread(variance, degrees)


def correlation(groups: Sequence[Sequence[float]], centre: float) -> float:
    """Return how much scores of one cluster correlate (the analysis of variance's estimate), from 0 to 1."""
    n, count = sum(map(len, groups)), len(groups)
    if n == count or count < 2:
        return 0.0
    means = [math.fsum(group) / len(group) for group in groups]
    between = math.fsum(len(g) * (m - centre) ** 2 for g, m in zip(groups, means, strict=True)) / (count - 1)
    within = math.fsum((value - m) ** 2 for g, m in zip(groups, means, strict=True) for value in g) / (
        n - count
    )
    size = (n - sum(len(group) ** 2 for group in groups) / n) / (count - 1)
    scale = between + (size - 1) * within
    return min(1.0, max(0.0, (between - within) / scale)) if scale > 0 else 0.0


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's interval around a share of `n` independent cases (n may be fractional)."""
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def independent(groups: Sequence[Sequence[float]]) -> float:
    """Return how many independent scores of 0 or 1 would know their mean as well as these clusters do.

    The t quantile's surplus over the normal one is taken off, as a few groups know their variance badly. Its
    degrees are those of scores that do not correlate: Wilson's interval is wide for few cases by itself, and
    with the correlation in it as well it holds the truth too often (docs/design/0020). It is the number of
    clusters where the scores say nothing, as they are all alike.
    """
    n, count = sum(map(len, groups)), len(groups)
    share = math.fsum(value for group in groups for value in group) / n
    if count == n:
        return float(n)
    found = spread(groups, share, alike=0.0)
    if found is None or not found.variance or share in (0, 1):
        return float(count)
    normal = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    worth = share * (1 - share) / found.variance * (normal / t_quantile(found.degrees)) ** 2
    return min(float(n), worth)


def bootstrap(
    figure: Callable[[Sequence[Any], Sequence[Any]], float],
    truths: Sequence[Any],
    predictions: Sequence[Any],
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    weighted: Weighted | None = None,
) -> Estimate:
    """Return a figure over pairs with its bootstrap interval; whole clusters are drawn.

    The plain percentiles are too narrow where clusters are few; these are further out by as much as Student's
    t is wider than the normal distribution (the expanded percentile interval, Hesterberg 2015).

    Resamples in which the figure is undefined are left out; when that is more than a tenth of them there
    is no interval.

    Args:
        figure: The figure, from truths and predictions.
        truths: One per row.
        predictions: One per row.
        clusters: One per row; None where every row stands alone.
        seed: Of the resampling.
        resamples: How many.
        weighted: The same figure as a function of weights, which are whole numbers; much faster. It gives
            NaN where it is undefined. The same resamples are drawn with it and without.

    Raises:
        ValueError: the figure is undefined for the pairs themselves.
    """
    numpy = need("numpy", extra="evals")
    value = figure(truths, predictions)
    groups = list(grouped(range(len(truths)), clusters).values())
    method = "cluster bootstrap" if len(groups) < len(truths) else "bootstrap"
    generator = numpy.random.default_rng(seed)
    drawn: list[float] = []
    resampled = resamples if len(groups) > 1 else 0
    if weighted is not None and resampled:
        owner = owners(groups)
        drawn, resampled = draws([(weighted(truths, predictions), owner)], generator, resamples), 0
    for _ in range(resampled):
        rows = [row for group in generator.integers(len(groups), size=len(groups)) for row in groups[group]]
        try:
            drawn.append(figure([truths[r] for r in rows], [predictions[r] for r in rows]))
        except ValueError:
            continue
    low = high = error = None
    if drawn and len(drawn) >= 0.9 * resamples:
        # The bootstrap's variance is that of a plain plug-in: too small by G - 1 over G.
        wider = math.sqrt(len(groups) / (len(groups) - 1))
        tail = NormalDist().cdf(-wider * t_quantile(len(groups) - 1))
        low, high = (float(q) for q in numpy.quantile(drawn, [tail, 1 - tail]))
        error = wider * float(numpy.std(drawn))
    return Estimate(value, low, high, len(truths), len(groups), method, error, len(groups) - 1)


def owners(groups: Sequence[Sequence[int]]) -> list[int]:
    """Return the number of its group for each row, of groups of row numbers."""
    owner = [0] * sum(map(len, groups))
    for number, rows in enumerate(groups):
        for row in rows:
            owner[row] = number
    return owner


def draws(
    figures: Sequence[tuple[Callable[[Any], Any], Sequence[int]]], generator: Any, resamples: int
) -> list[float]:
    """Return a figure of each resample of whole groups for which it is defined, some at a time.

    Args:
        figures: The figure as a function of its rows' weights, with the group of each row. Of two the second
            is taken off the first; the same groups are drawn for both.
        generator: numpy's.
        resamples: How many.
    """
    numpy = need("numpy", extra="evals")
    count = max(max(owner) for _, owner in figures) + 1
    size = max(1, min(resamples, 1_000_000 // max(len(owner) for _, owner in figures)))
    drawn: list[float] = []
    for start in range(0, resamples, size):
        times = numpy.stack(
            [
                numpy.bincount(generator.integers(count, size=count), minlength=count)
                for _ in range(min(size, resamples - start))
            ]
        ).astype(float)
        first, *others = (numpy.asarray(weigh(times[:, owner])) for weigh, owner in figures)
        found = first - sum(others)
        drawn += found[numpy.isfinite(found)].tolist()
    return drawn


def grouped(values: Sequence[Any], clusters: Sequence[Hashable] | None) -> dict[Hashable, list[Any]]:
    """Return values by cluster; without clusters, each alone."""
    groups: dict[Hashable, list[Any]] = {}
    for key, value in zip(range(len(values)) if clusters is None else clusters, values, strict=True):
        groups.setdefault(key, []).append(value)
    return groups


def t_quantile(degrees: float, alpha: float = 1 - LEVEL) -> float:
    """Return how many standard errors an interval reaches to either side, by Student's t."""
    return float(need("scipy.special", extra="evals").stdtrit(degrees, 1 - alpha / 2))
