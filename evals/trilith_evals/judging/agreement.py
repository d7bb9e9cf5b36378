"""How far two sets of verdicts agree beyond chance: kappa, alpha, rank correlation, by cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal

from trilith.extras import need
from trilith_evals import estimate
from trilith_evals.estimate import Estimate
from trilith_evals.judging.linear import linear


def kappa(
    truths: Sequence[Hashable],
    verdicts: Sequence[Hashable],
    clusters: Sequence[Hashable] | None = None,
    *,
    weights: Literal["none", "quadratic"] = "none",
) -> Estimate | None:
    """Return Cohen's kappa (1960; weighted: 1968): 1 full agreement, 0 as chance would have it.

    Its interval is by the delta method of Fleiss, Cohen and Everitt (1969), with clusters.

    Args:
        truths: What people said.
        verdicts: What the judge said of the same.
        clusters: What each came from.
        weights: none: any difference counts the same. quadratic: numbers that lie near count as nearly
        agreed.

    Returns:
        The estimate; None where chance alone agrees everywhere (both always say the same one thing).
    """

    def agreed(a: Hashable, b: Hashable) -> float:
        if weights == "none":
            return float(a == b)
        return 1.0 - ((float(a) - float(b)) / span) ** 2  # type: ignore[arg-type]  # numbers, see above

    n = len(truths)
    span = 1.0
    if weights == "quadratic":
        values = [float(value) for value in (*truths, *verdicts)]  # type: ignore[arg-type]  # see above
        span = (max(values) - min(values)) or 1.0
    of_truth, of_verdict = Counter(truths), Counter(verdicts)
    by_truth = {a: math.fsum(m / n * agreed(a, b) for b, m in of_verdict.items()) for a in of_truth}
    by_verdict = {b: math.fsum(m / n * agreed(a, b) for a, m in of_truth.items()) for b in of_verdict}
    seen = [agreed(a, b) for a, b in zip(truths, verdicts, strict=True)]
    observed = math.fsum(seen) / n
    chance = math.fsum(m / n * by_truth[a] for a, m in of_truth.items())
    if 1 - chance < 1e-12:
        return None
    influences = [
        ((1 - chance) * (hit - observed) - (1 - observed) * (by_truth[a] + by_verdict[b] - 2 * chance))
        / (1 - chance) ** 2
        for hit, a, b in zip(seen, truths, verdicts, strict=True)
    ]
    return linear((observed - chance) / (1 - chance), influences, clusters)


def alpha(
    units: Sequence[Sequence[float | None]],
    clusters: Sequence[Hashable] | None = None,
    *,
    level: Literal["nominal", "interval"] = "nominal",
) -> Estimate | None:
    """Return Krippendorff's alpha over any number of raters; gaps are allowed.

    `1 - observed / expected disagreement` over the values that can be paired (Krippendorff 2019, chapter 12).

    Args:
        units: The ratings of each thing that was rated; None where a rater gave none.
        clusters: What each thing came from.
        level: nominal: values are names. interval: the squared difference of numbers.

    Returns:
        The estimate; None where nothing was rated twice, or only one value was ever given.
    """

    def apart(a: float, b: float) -> float:
        return float(a != b) if level == "nominal" else (a - b) ** 2

    kept: list[tuple[Counter[float], Hashable]] = []
    for at, unit in enumerate(units):
        given = Counter(rating for rating in unit if rating is not None)
        if given.total() > 1:
            kept.append((given, at if clusters is None else clusters[at]))
    totals: Counter[float] = Counter()
    for given, _ in kept:
        totals += given
    n = totals.total()
    around = {a: math.fsum(m * apart(a, b) for b, m in totals.items()) for a in totals}
    expected = math.fsum(m * around[a] for a, m in totals.items())
    if not expected:
        return None
    inner = [
        math.fsum(m * k * apart(a, b) for a, m in given.items() for b, k in given.items())
        / (given.total() - 1)
        for given, _ in kept
    ]
    observed = math.fsum(inner)
    influences = [
        -len(kept)
        / expected
        * (
            given.total() * observed
            + (n - 1) * own
            - 2 * (n - 1) * observed * math.fsum(m * around[a] for a, m in given.items()) / expected
        )
        for (given, _), own in zip(kept, inner, strict=True)
    ]
    of = None if clusters is None else [cluster for _, cluster in kept]
    return linear(1 - (n - 1) * observed / expected, influences, of)


def spearman(
    truths: Sequence[float], verdicts: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """Return the correlation of the ranks, by a bootstrap over clusters; None where one never varies."""
    if len(set(truths)) < 2 or len(set(verdicts)) < 2:
        return None
    return estimate.bootstrap(rank_correlation, truths, verdicts, clusters)


def rank_correlation(truths: Sequence[float], verdicts: Sequence[float]) -> float:
    """Return Spearman's rho, ties at their middle rank.

    Raises:
        ValueError: one of them never varies.
    """
    ranked = need("scipy.stats", extra="evals").rankdata
    numpy = need("numpy", extra="evals")
    one, other = (ranks - ranks.mean() for ranks in (ranked(truths), ranked(verdicts)))
    size = math.sqrt(float((one * one).sum()) * float((other * other).sum()))
    if not size:
        raise ValueError("the rank correlation is undefined where one side never varies")
    return float(numpy.dot(one, other)) / size


def ceiling(units: Sequence[Sequence[float]], clusters: Sequence[Hashable] | None = None) -> Estimate | None:
    """Return how well a person agrees with the mean of the others (Spearman): no judge need do better.

    Args:
        units: The ratings of each answer, one a rater, the raters in one order, at least two.
        clusters: What each answer came from.
    """
    raters = min(map(len, units))
    if raters < 2:
        return None

    def each(rows: Sequence[Sequence[float]], _: Sequence[object]) -> float:
        found = [
            rank_correlation(
                [row[at] for row in rows], [(sum(row) - row[at]) / (len(row) - 1) for row in rows]
            )
            for at in range(raters)
        ]
        return math.fsum(found) / raters

    try:
        return estimate.bootstrap(each, units, units, clusters, resamples=300)
    except ValueError:
        return None
