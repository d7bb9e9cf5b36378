"""Calibrates a judge of single answers: its verdicts held against people's, and its biases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from trilith_evals import estimate
from trilith_evals.estimate import Estimate
from trilith_evals.judging.agreement import alpha, ceiling, kappa, spearman
from trilith_evals.judging.correction import Corrected, ppi_mean, rogan_gladen
from trilith_evals.judging.linear import gap


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer with the judge's verdict, and people's where there are any."""

    id: str
    human: tuple[float, ...]
    """One rating a person; empty where nobody looked."""
    verdict: float | None
    """None where the judge gave none."""
    length: int | None = None
    """Of the answer (characters)."""
    cluster: str | None = None
    """What it came from."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a judge of answers is worth. Figures are None where they are undefined."""

    rows: int
    labelled: int
    """Rows with people's label and a verdict; the figures of agreement are over these."""
    unjudged: int
    """Rows to which the judge gave no verdict."""
    accuracy: Estimate | None
    """Share on which judge and people say the same."""
    kappa: Estimate | None
    """Cohen's; with weights by the squared difference where the scale has more than two steps."""
    alpha: Estimate | None
    """Krippendorff's, the judge being one more rater."""
    precision: Estimate | None
    """Of the answers that the judge passed, those that people pass; for yes and no only."""
    recall: Estimate | None
    """Of the answers that people pass, those that the judge passed."""
    specificity: Estimate | None
    """Of the answers that people fail, those that the judge failed."""
    spearman: Estimate | None
    """Correlation of the ranks with the mean of people; for graded scales only."""
    ceiling: Estimate | None
    """A person's rank correlation with the mean of the others, where several rated."""
    length_bias: Estimate | None
    """How much higher the judge rates the longer half of the answers that people rate alike (share of the
    scale)."""
    judge_mean: Estimate | None
    """Mean verdict over all rows, uncorrected."""
    corrected: Corrected | None
    """The mean that people would give all rows (prediction-powered inference)."""
    rogan_gladen: Estimate | None
    """The same for yes and no by the judge's error rates."""
    slices: Mapping[str, Calibration] = field(default_factory=dict)


def calibrate(rows: Sequence[Judged], bounds: tuple[float, float] = (0.0, 1.0)) -> Calibration:
    """Hold a judge's verdicts against people's.

    Several people's ratings of one answer become the majority's (a tie is left unlabelled) where the scale is
    yes or no, and their mean where it is graded.

    Args:
        rows: At least one.
        bounds: Lowest and highest value of the scale; `(0, 1)` is yes or no.
    """
    parts: dict[str, list[Judged]] = {}
    for row in rows:
        for key, value in row.tags.items():
            parts.setdefault(f"{key}={value}", []).append(row)
    slices = {name: _calibrated(part, bounds, {}) for name, part in sorted(parts.items())}
    return _calibrated(rows, bounds, slices)


def label(human: Sequence[float], *, binary: bool) -> float | None:
    """Return what several people's ratings come to; None where there are none, or as many yes as no."""
    if not human:
        return None
    if not binary:
        return math.fsum(human) / len(human)
    (first, most), *others = Counter(human).most_common()
    return None if others and others[0][1] == most else first


def _calibrated(
    rows: Sequence[Judged], bounds: tuple[float, float], slices: Mapping[str, Calibration]
) -> Calibration:
    binary = bounds == (0.0, 1.0)
    judged = [row for row in rows if row.verdict is not None]
    verdicts = [row.verdict for row in judged if row.verdict is not None]
    labels = [label(row.human, binary=binary) for row in judged]
    clusters = _clusters(judged)
    on = [at for at, truth in enumerate(labels) if truth is not None]
    truths = [truth for truth in labels if truth is not None]
    said = [verdicts[at] for at in on]
    of = None if clusters is None else [clusters[at] for at in on]
    matched = [float(_step(t) == _step(s)) for t, s in zip(truths, said, strict=True)]

    def among(wanted: Sequence[float], given: Sequence[float], value: float) -> Estimate | None:
        kept = [at for at, seen in enumerate(given) if seen == value]
        picked = None if of is None else [of[at] for at in kept]
        return estimate.mean([float(wanted[at] == value) for at in kept], picked) if kept else None

    return Calibration(
        rows=len(rows),
        labelled=len(on),
        unjudged=len(rows) - len(judged),
        accuracy=estimate.mean(matched, of) if on else None,
        kappa=_kappa(truths, said, of, binary=binary) if on else None,
        alpha=alpha(
            [(*judged[at].human, verdicts[at]) for at in on], of, level="nominal" if binary else "interval"
        ),
        precision=among(truths, said, 1.0) if binary else None,
        recall=among(said, truths, 1.0) if binary else None,
        specificity=among(said, truths, 0.0) if binary else None,
        spearman=None if binary or not on else spearman(truths, said, of),
        ceiling=_ceiling([judged[at] for at in on], of),
        length_bias=_length_bias([judged[at] for at in on], truths, said, of, bounds),
        judge_mean=estimate.mean(verdicts, clusters) if verdicts else None,
        corrected=ppi_mean(labels, verdicts, clusters, bounds=bounds) if len(on) > 1 else None,
        rogan_gladen=_rogan_gladen(labels, verdicts, clusters) if binary and on else None,
        slices=slices,
    )


def _clusters(rows: Sequence[Judged]) -> list[Hashable] | None:
    if all(row.cluster is None for row in rows):
        return None
    return [("row", row.id) if row.cluster is None else ("cluster", row.cluster) for row in rows]


def _step(value: float) -> int:
    """Return the step of the scale that a mean of ratings is nearest to; a half counts upwards."""
    return math.floor(value + 0.5)


def _kappa(
    truths: Sequence[float], said: Sequence[float], of: Sequence[Hashable] | None, *, binary: bool
) -> Estimate | None:
    steps = [_step(value) for value in truths], [_step(value) for value in said]
    return kappa(*steps, of, weights="none" if binary else "quadratic")


def _ceiling(rows: Sequence[Judged], of: Sequence[Hashable] | None) -> Estimate | None:
    several = [at for at, row in enumerate(rows) if len(row.human) > 1]
    if len(several) < 3:
        return None
    return ceiling([rows[at].human for at in several], None if of is None else [of[at] for at in several])


def _length_bias(
    rows: Sequence[Judged],
    truths: Sequence[float],
    said: Sequence[float],
    of: Sequence[Hashable] | None,
    bounds: tuple[float, float],
) -> Estimate | None:
    told = [at for at, row in enumerate(rows) if row.length is not None]
    if not told:
        return None
    lengths = [row.length for row in rows if row.length is not None]
    middle = median(lengths)
    return gap(
        [said[at] / (bounds[1] - bounds[0]) for at in told],
        [length > middle for length in lengths],
        [_step(truths[at]) for at in told],
        None if of is None else [of[at] for at in told],
    )


def _rogan_gladen(
    labels: Sequence[float | None], verdicts: Sequence[float], clusters: Sequence[Hashable] | None
) -> Estimate | None:
    # A judge that is asked several times may have a mean verdict between yes and no.
    yes = [verdict >= 0.5 for verdict in verdicts]
    return rogan_gladen([None if truth is None else truth == 1 for truth in labels], yes, clusters)
