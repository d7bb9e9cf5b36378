"""Estimates of what people would say, from many verdicts of a judge and a few of people's own.

A judge that errs makes a mean that is wrong however many rows it is over. Where people labelled some of the
rows, the error is measured there and taken off, and the interval knows how well it was measured:
prediction-powered inference (Angelopoulos and others, Science 2023; with a tuned weight, PPI++: Angelopoulos,
Duchi and Zrnic 2023), and for judges that say yes or no, Rogan and Gladen's estimate (1978).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from trilith_evals import estimate
from trilith_evals.estimate import Estimate, Spread
from trilith_evals.judging.linear import reach

METHOD = "ppi++"


@dataclass(frozen=True, slots=True)
class Corrected:
    """A figure of what people would say."""

    estimate: Estimate
    """Corrected; its method is `ppi++`, or `cluster ppi++`."""
    weight: float
    """How much the judge's verdicts count, from 0 (worth nothing: people's alone) to 1."""
    labelled: int
    """Rows that people labelled too."""
    judge: Estimate
    """The mean of the judge's verdicts over all rows, uncorrected."""
    people: Estimate
    """The mean of people's labels over the rows that have one."""

    @property
    def worth(self) -> float | None:
        """How many labels without a judge would say as much as these with it; None when it is not known."""
        mine, theirs = self.estimate, self.people
        if None in (mine.low, mine.high, theirs.low, theirs.high):
            return None
        narrow = (mine.high or 0.0) - (mine.low or 0.0)
        wide = (theirs.high or 0.0) - (theirs.low or 0.0)
        return self.labelled * (wide / narrow) ** 2 if narrow else None


def ppi_mean(
    labels: Sequence[float | None],
    verdicts: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
) -> Corrected:
    """Return the mean that people's labels would have over rows like these.

    `mean(labels) + w (mean(verdicts elsewhere) - mean(verdicts on the labelled))`, with the weight `w` for
    the smallest variance, from 0 to 1. Rows of one cluster may be on both sides; the two parts' covariance is
    counted. The interval is Student's, with the degrees of freedom that both parts' variances have (Welch
    1947).

    A handful of labels that all agree with the judge say nothing of how often it errs, and the variance would
    be next to 0. Where scores are yes or no, or all labels agree, two made-up rows that disagree, one each
    way, stand in for that (as in Agresti and Coull 1998). They count in the variance and in the weight, and
    not in the mean.

    Args:
        labels: People's, None where there is none; at least two must be there.
        verdicts: The judge's of the same rows.
        clusters: What each row came from.
        bounds: Lowest and highest score that can be given, such as `(0, 1)`.

    Raises:
        ValueError: fewer than two rows are labelled.
    """
    on = [at for at, label in enumerate(labels) if label is not None]
    off = [at for at, label in enumerate(labels) if label is None]
    if len(on) < 2:
        raise ValueError(f"{len(on)} rows have people's labels, expected at least 2")
    truth = [float(label) for label in labels if label is not None]
    said = [verdicts[at] for at in on]
    keys = list(range(len(verdicts))) if clusters is None else list(clusters)
    doubtful = bounds is not None and (truth == said or {*truth, *verdicts} <= {*bounds})
    here = _Part(truth, said, [keys[at] for at in on], bounds if doubtful else None)
    rest = _Rest([verdicts[at] for at in off], [keys[at] for at in off])
    weight = _weight(here, rest)
    value = _mean(truth)
    if off:
        value += weight * (_mean(rest.said) - _mean(said))
    robust = len(set(keys)) < len(keys)
    found = _joined(here, rest, weight)
    if found is not None and rest.said and weight:
        found = _fitted(found, here, weight)
    low = high = None
    if found is not None and found.variance > 0:
        low, high = _ends(value, found, bounds, len(on))
    if bounds is not None:
        value = min(bounds[1], max(bounds[0], value))
        low, high = (None if end is None else min(bounds[1], max(bounds[0], end)) for end in (low, high))
    method = f"cluster {METHOD}" if robust else METHOD
    return Corrected(
        Estimate(value, low, high, len(verdicts), len(set(keys)), method),
        weight,
        len(on),
        estimate.mean(verdicts, clusters),
        estimate.mean(truth, None if clusters is None else [keys[at] for at in on]),
    )


def ppi_difference(
    labels: tuple[Sequence[float | None], Sequence[float | None]],
    verdicts: tuple[Sequence[float], Sequence[float]],
    clusters: Sequence[Hashable] | None = None,
    *,
    bounds: tuple[float, float] | None = None,
) -> Corrected:
    """Return the mean of second less first that people's labels would have, over the same cases twice.

    A case counts as labelled where people labelled both sides. Errors that the judge makes on both sides
    alike drop out before the correction, so few labels go far.

    Args:
        labels: People's, of the first and the second run, case by case.
        verdicts: The judge's of the same.
        clusters: What each case came from.
        bounds: Lowest and highest score of one side.

    Raises:
        ValueError: fewer than two cases are labelled on both sides.
    """
    differences = [
        None if one is None or other is None else other - one for one, other in zip(*labels, strict=True)
    ]
    said = [other - one for one, other in zip(*verdicts, strict=True)]
    span = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    return ppi_mean(differences, said, clusters, bounds=span)


def _ends(
    value: float, found: Spread, bounds: tuple[float, float] | None, labelled: int
) -> tuple[float, float]:
    """Return the ends of an interval, between bounds on the scale of the logit.

    A share near a bound has a long tail away from it, which an interval as long to either side misses where
    few clusters are labelled (as the logit interval for surveys, Korn and Graubard 1999). Its middle is drawn
    inwards by one right and one wrong case among as many as this variance is worth, so that all of one kind
    is no certainty (as in Agresti and Coull 1998).
    """
    away = reach(found)
    if bounds is None:
        return value - away, value + away
    span = bounds[1] - bounds[0]
    share = min(1.0, max(0.0, (value - bounds[0]) / span))
    inside = (share * labelled + 1) / (labelled + 2)
    worth = inside * (1 - inside) / (found.variance / span**2)
    middle = (share * worth + 1) / (worth + 2)
    odds, step = math.log(middle / (1 - middle)), away / span / (middle * (1 - middle))
    low, high = (1 / (1 + math.exp(-max(-500.0, min(500.0, odds + side * step)))) for side in (-1, 1))
    return bounds[0] + span * min(low, share), bounds[0] + span * max(high, share)


class _Part:
    """The labelled rows, with what stands in for disagreements that so few cannot show."""

    def __init__(
        self,
        truth: Sequence[float],
        said: Sequence[float],
        keys: Sequence[Hashable],
        bounds: tuple[float, float] | None,
    ) -> None:
        extra = [] if bounds is None else [(bounds[0], bounds[1]), (bounds[1], bounds[0])]
        self.truth = [*truth, *(t for t, _ in extra)]
        self.said = [*said, *(s for _, s in extra)]
        self.keys: list[Hashable] = [*keys, *(("made up", at) for at in range(len(extra)))]

    def left(self, weight: float) -> list[float]:
        """Return label less weighed verdict of each row."""
        return [t - weight * s for t, s in zip(self.truth, self.said, strict=True)]


@dataclass(frozen=True, slots=True)
class _Rest:
    said: Sequence[float]
    keys: Sequence[Hashable]


def _weight(here: _Part, rest: _Rest) -> float:
    """Return the weight of the verdicts at which the variance is smallest: it is a parabola of the weight."""
    if not rest.said:
        return 0.0
    none, half, whole = (_total(here, rest, weight) for weight in (0.0, 0.5, 1.0))
    curve = 2 * (none + whole - 2 * half)
    slope = whole - none - curve
    if curve <= 1e-15:
        return 0.0 if slope >= 0 else 1.0
    return min(1.0, max(0.0, -slope / (2 * curve)))


def _total(here: _Part, rest: _Rest, weight: float) -> float:
    found = _joined(here, rest, weight)
    return 0.0 if found is None else found.variance


def _joined(here: _Part, rest: _Rest, weight: float) -> Spread | None:
    """Return the variance of the corrected mean, and its degrees of freedom."""
    first = _spread(here.left(weight), here.keys)
    if first is None or not rest.said or not weight:
        return first
    second = _spread([weight * said for said in rest.said], rest.keys)
    if second is None:
        return first
    shared = 2 * _covariance(here, rest, weight)
    parts = first.variance + second.variance
    total = max(parts + shared, 0.0)
    squares = first.variance**2 / first.degrees + second.variance**2 / second.degrees
    degrees = parts**2 / squares if squares else first.degrees
    return Spread(total, degrees)


def _fitted(found: Spread, here: _Part, weight: float) -> Spread:
    """Add what it costs that the weight was tuned on the same rows.

    A cluster that pulls the weight towards itself looks better fitted than it is; its residual is raised by
    its leverage on the slope, as in HC3 (MacKinnon and White 1985), and one degree of freedom is gone.
    """
    first = _spread(here.left(weight), here.keys)
    residuals, pulls = _sums(here.left(weight), here.keys), _sums(here.said, here.keys)
    pulled = math.fsum(pull * pull for pull in pulls.values())
    plain = math.fsum(residual * residual for residual in residuals.values())
    if first is None or not pulled or not plain:
        return found
    raised = math.fsum(
        (residual / (1 - min(0.9, pulls[key] ** 2 / pulled))) ** 2 for key, residual in residuals.items()
    )
    added = first.variance * (raised / plain - 1)
    return Spread(found.variance + added, max(1.0, found.degrees - 1))


def _spread(values: Sequence[float], keys: Sequence[Hashable]) -> Spread | None:
    return estimate.spread(list(estimate.grouped(values, keys).values()), _mean(values))


def _covariance(here: _Part, rest: _Rest, weight: float) -> float:
    """Return the covariance of both parts through the clusters that they share."""
    mine, theirs = _sums(here.left(weight), here.keys), _sums([weight * s for s in rest.said], rest.keys)
    both = mine.keys() & theirs.keys()
    if not both:
        return 0.0
    groups = len(mine.keys() | theirs.keys())
    return math.fsum(mine[key] * theirs[key] for key in both) * groups / (groups - 1) if groups > 1 else 0.0


def _sums(values: Sequence[float], keys: Sequence[Hashable]) -> dict[Hashable, float]:
    middle = _mean(values)
    return {
        key: math.fsum(value - middle for value in group) / len(values)
        for key, group in estimate.grouped(values, keys).items()
    }


def rogan_gladen(
    labels: Sequence[bool | None], verdicts: Sequence[bool], clusters: Sequence[Hashable] | None = None
) -> Estimate | None:
    """Return the share of yes that people would give, from a judge's share and its error rates.

    `(share + specificity - 1) / (sensitivity + specificity - 1)`, with the interval of Lang and Reiczigel
    (2014) on the numbers of independent rows that clusters leave. `ppi_mean` is the better figure where the
    labelled rows are drawn as the others are; this one also holds where yes is rarer or more frequent among
    them.

    Args:
        labels: People's, None where there is none.
        verdicts: The judge's.
        clusters: What each row came from.

    Returns:
        The estimate; None where no row is labelled yes, or none no, or the judge is no better than a coin.
    """
    keys = list(range(len(verdicts))) if clusters is None else list(clusters)
    told = [
        (bool(label), verdict, key)
        for label, verdict, key in zip(labels, verdicts, keys, strict=True)
        if label is not None
    ]
    of_yes = [(float(verdict), key) for label, verdict, key in told if label]
    of_no = [(float(not verdict), key) for label, verdict, key in told if not label]
    if not of_yes or not of_no:
        return None
    share, n = _counted([float(verdict) for verdict in verdicts], keys)
    sensitivity, hits = _counted([v for v, _ in of_yes], [k for _, k in of_yes])
    specificity, refusals = _counted([v for v, _ in of_no], [k for _, k in of_no])
    if sensitivity + specificity <= 1:
        return None
    value = (share + specificity - 1) / (sensitivity + specificity - 1)
    z = NormalDist().inv_cdf(0.5 + estimate.LEVEL / 2)
    share = (n * share + z * z / 2) / (n + z * z)
    sensitivity = (hits * sensitivity + 1) / (hits + 2)
    specificity = (refusals * specificity + 1) / (refusals + 2)
    youden = sensitivity + specificity - 1
    low = high = None
    if youden > 0:
        middle = (share + specificity - 1) / youden
        of_hits = sensitivity * (1 - sensitivity) / (hits + 2)
        of_refusals = specificity * (1 - specificity) / (refusals + 2)
        error = math.sqrt(
            share * (1 - share) / (n + z * z) + middle**2 * of_hits + (1 - middle) ** 2 * of_refusals
        )
        shift = 2 * z * z * (middle * of_hits - (1 - middle) * of_refusals)
        low, high = (_cut(middle + shift + side * z * error / youden) for side in (-1, 1))
    groups = len(set(keys))
    method = "cluster rogan-gladen" if groups < len(keys) else "rogan-gladen"
    return Estimate(_cut(value), low, high, len(verdicts), groups, method)


def _counted(values: Sequence[float], keys: Sequence[Hashable]) -> tuple[float, float]:
    """Return a share, and how many independent rows would know it as well."""
    return _mean(values), estimate.independent(list(estimate.grouped(values, keys).values()))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))
