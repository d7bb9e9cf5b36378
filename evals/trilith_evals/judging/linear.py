"""Intervals of figures that are no plain mean, through what each row adds to them.

A kappa, a difference of two shares or a corrected mean is nearly linear in its rows. With every row's
influence on the figure (Hampel 1974) its variance is that of a mean, so clusters count here as in `estimate`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from trilith_evals import estimate
from trilith_evals.estimate import Estimate, Spread


def linear(
    value: float,
    influences: Sequence[float],
    clusters: Sequence[Hashable] | None,
    *,
    low: float = -1.0,
    high: float = 1.0,
) -> Estimate:
    """Return a figure with its interval.

    Args:
        value: The figure.
        influences: What each row adds to it, times the number of rows; their mean is about 0.
        clusters: What each row came from; None: each stands alone.
        low: Smallest value that the figure can have; the interval is cut there.
        high: Largest value that it can have.

    Returns:
        The estimate; without an interval where the rows show no spread at all, as they do when all agree.
    """
    groups = estimate.grouped(influences, clusters)
    centre = math.fsum(influences) / len(influences)
    found = estimate.spread(list(groups.values()), centre)
    method = "cluster delta" if len(groups) < len(influences) else "delta"
    if found is None or found.variance < 1e-18:
        return Estimate(value, None, None, len(influences), len(groups), method)
    away = reach(found)
    return Estimate(
        value, max(low, value - away), min(high, value + away), len(influences), len(groups), method
    )


def reach(found: Spread) -> float:
    """Return half the width of the 95 % interval."""
    return estimate.t_quantile(found.degrees) * math.sqrt(found.variance)


def gap(
    values: Sequence[float],
    exposed: Sequence[bool],
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable] | None,
) -> Estimate | None:
    """Return how much higher values are where `exposed`, between rows of the same stratum.

    The strata's differences are weighted as by Mantel and Haenszel (Greenland and Robins 1985); a stratum
    that has only one kind tells nothing.

    Args:
        values: Such as whether a judge said yes.
        exposed: Such as whether the answer is a long one.
        strata: Such as what people said: an effect on them is no bias of the judge.
        clusters: What each row came from.

    Returns:
        The difference; None where no stratum has both kinds.
    """
    cells: dict[Hashable, tuple[list[int], list[int]]] = {}
    for at, (stratum, is_exposed) in enumerate(zip(strata, exposed, strict=True)):
        cells.setdefault(stratum, ([], []))[is_exposed].append(at)
    both = [(off, on) for off, on in cells.values() if off and on]
    total = math.fsum(len(off) * len(on) / (len(off) + len(on)) for off, on in both)
    if not both:
        return None
    value, influences = 0.0, [0.0] * len(values)
    for off, on in both:
        weight = len(off) * len(on) / (len(off) + len(on)) / total
        means = [math.fsum(values[at] for at in rows) / len(rows) for rows in (off, on)]
        value += weight * (means[1] - means[0])
        for sign, rows, middle in ((-1, off, means[0]), (1, on, means[1])):
            for at in rows:
                influences[at] = sign * weight * (values[at] - middle) / len(rows) * len(values)
    return linear(value, influences, clusters)
