"""Intervals that hold however often one looks, so that a run may stop as soon as it is decided.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024, "Time-uniform
central limit theory and asymptotic confidence sequences"), with clusters as its observations.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

from trilith_evals import estimate
from trilith_evals.estimate import Estimate

FEWEST = 20
"""Clusters before which nothing is said: the sequence rests on the central limit theorem."""


def always_valid(found: Estimate, planned_rows: int, alpha: float = 0.05) -> Estimate:
    """Return an estimate with an interval that may be looked at after every case.

    Args:
        found: The estimate of the rows so far.
        planned_rows: Rows that there would be at most; the interval is narrowest at half of them.
        alpha: One less the level.
    """
    error, degrees = _error(found), found.degrees or max(1, found.clusters - 1)
    method = "always valid"
    if error is None or found.clusters < FEWEST:
        return replace(found, low=None, high=None, error=None, worth=None, method=method)
    # A few clusters know their spread badly, as Student's t says.
    error *= estimate.t_quantile(degrees, alpha) / NormalDist().inv_cdf(1 - alpha / 2)
    best = max(1.0, planned_rows * found.clusters / found.n / 2)
    tuned = found.clusters / best * _narrowest(alpha)
    reach = error * math.sqrt(2 * (tuned + 1) / tuned * math.log(math.sqrt(tuned + 1) / alpha))
    low, high = found.value - reach, found.value + reach
    return replace(found, low=low, high=high, error=error, worth=None, method=method, tuned=tuned)


def _narrowest(alpha: float) -> float:
    """Return the T at which the interval is about narrowest."""
    return -2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1


def _error(found: Estimate) -> float | None:
    if found.worth is None:
        return found.error or None
    # All right so far is not certainty: as if one more had gone either way.
    share = (found.value * found.worth + 1) / (found.worth + 2)
    return math.sqrt(share * (1 - share) / found.worth)
