"""Performance before labels come: estimated from scores (classifiers) or by a model of the loss (regressors).

Both rest on one assumption, and every figure says so: what follows from the inputs is as it was. A change of
that (concept drift) cannot be seen without labels by anybody.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trilith.extras import need
from trilith_evals.estimate import t_quantile
from trilith_evals.online.encoder import Encoder
from trilith_evals.online.record import Floats, Record

ASSUMPTION = "inputs may drift, but what follows from them has not changed (no concept drift)"


@dataclass(frozen=True, slots=True)
class Estimated:
    """A loss that nobody has seen yet."""

    value: float
    low: float
    high: float
    """95 % interval: how far the estimate was off on windows of the reference."""
    n: int
    assumption: str = ""
    rows: Floats | None = None
    """The expected loss of each row."""


class LossEstimator(Protocol):
    """Says what loss to expect of records without labels."""

    def estimate(self, records: Sequence[Record]) -> Estimated:
        """Return the mean loss to expect. Labels are not looked at."""
        ...


def zero_one(record: Record) -> float | None:
    """Return 1 where a classifier is wrong at the cut of one half; None without label or score."""
    if record.label is None or record.score is None:
        return None
    return float((record.score >= 0.5) != (record.label >= 0.5))


def absolute(record: Record) -> float | None:
    """Return a regressor's absolute error; None without label or score."""
    return None if record.label is None or record.score is None else abs(record.score - record.label)


class Cbpe:
    """Confidence-based performance estimation for a classifier with two classes.

    A calibrated probability says how often it is wrong: at p, `min(p, 1 - p)`. The scores are calibrated
    on the reference first (isotonic regression); for the interval, its halves calibrate each other.
    The method is that of NannyML's CBPE; Kivimäki and others 2024 give when it is unbiased.
    """

    def __init__(self, reference: Sequence[Sequence[Record]]) -> None:
        """Take the reference's windows.

        Raises:
            ValueError: there are fewer than four windows with labels and scores, or one class only.
        """
        blocks = _labelled(reference)
        scores, labels = _columns([r for block in blocks for r in block])
        if len(set(labels >= 0.5)) < 2:
            raise ValueError("the reference has one class only, expected both")
        self._calibrated = _isotonic(scores, labels)
        self._error = _off(blocks, lambda rows: _isotonic(*_columns(rows)), self._loss, zero_one)

    def estimate(self, records: Sequence[Record]) -> Estimated:
        """Return the error rate to expect."""
        rows = self._loss(self._calibrated, [r for r in records if r.score is not None])
        return _figure(rows, self._error)

    def auc(self, records: Sequence[Record]) -> float:
        """Return the area under the ROC curve to expect; NaN where one class is not expected at all."""
        scores = np.array([r.score for r in records if r.score is not None], float)
        p = self._calibrated(scores)
        order = np.argsort(scores, kind="stable")
        p, ordered = p[order], scores[order]
        _, starts = np.unique(ordered, return_index=True)
        positive, negative = np.add.reduceat(p, starts), np.add.reduceat(1 - p, starts)
        below = np.cumsum(negative) - negative / 2  # a tie is half a win
        total = positive.sum() * negative.sum()
        return float((positive * below).sum() / total) if total else math.nan

    @staticmethod
    def _loss(calibrated: Any, records: Sequence[Record]) -> Floats:
        scores = np.array([r.score for r in records], float)
        p = calibrated(scores)
        wrong: Floats = np.where(scores >= 0.5, 1 - p, p)
        return wrong


class LossModel:
    """Direct loss estimation: a model of the loss, trained on the reference, from features and prediction."""

    def __init__(
        self, reference: Sequence[Sequence[Record]], loss: Callable[[Record], float | None] = absolute
    ) -> None:
        """Take the reference's windows.

        Raises:
            ValueError: there are fewer than four windows with labels and scores.
        """
        blocks = _labelled(reference)
        rows = [record for block in blocks for record in block]
        self._encoder = Encoder(sorted({name for record in rows for name in record.features}), rows)

        def fit(records: Sequence[Record]) -> Any:
            library = need("sklearn.ensemble", extra="evals")
            model = library.HistGradientBoostingRegressor(
                max_iter=60, max_leaf_nodes=15, min_samples_leaf=40, early_stopping=False, random_state=0
            )
            return model.fit(self._table(records), [loss(record) for record in records])

        self._model = fit(rows)
        self._error = _off(blocks, fit, self._loss, loss)

    def estimate(self, records: Sequence[Record]) -> Estimated:
        """Return the mean loss to expect."""
        given = [record for record in records if record.score is not None]
        return _figure(self._loss(self._model, given), self._error)

    def _loss(self, model: Any, records: Sequence[Record]) -> Floats:
        if not records:
            return np.array([])
        expected: Floats = np.maximum(0.0, np.asarray(model.predict(self._table(records)), float))
        return expected

    def _table(self, records: Sequence[Record]) -> Floats:
        scores = np.array([record.score for record in records], float)  # a missing one is NaN
        table: Floats = np.column_stack([self._encoder.table(records), scores])
        return table


@dataclass(frozen=True, slots=True)
class Explained:
    """How much of a rise in the loss is what the inputs' drift lets expect."""

    seen: float
    """Rise of the loss since the reference, by labels."""
    expected: float
    """Rise that the estimate says."""
    low: float
    high: float
    """95 % interval of `seen - expected`: what the inputs do not explain."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.low > 0:
            return "more than the drift of the inputs explains: what follows from them has changed"
        if self.expected > 0 and self.low <= 0 <= self.high:
            return "the drift of the inputs explains it"
        return "no evidence that it is more than the drift of the inputs"


def explained(
    records: Sequence[Record], estimator: LossEstimator, usual: float, loss: Callable[[Record], float | None]
) -> Explained | None:
    """Hold the seen loss against the estimated one; None without labels."""
    labelled = [record for record in records if loss(record) is not None]
    if not labelled:
        return None
    found = estimator.estimate(labelled)
    seen = float(np.mean([loss(record) for record in labelled]))
    rest = seen - found.value
    reach = (found.high - found.low) / 2
    return Explained(seen - usual, found.value - usual, rest - reach, rest + reach)


def _labelled(reference: Sequence[Sequence[Record]]) -> list[list[Record]]:
    blocks = [[r for r in block if r.label is not None and r.score is not None] for block in reference]
    blocks = [block for block in blocks if block]
    if len(blocks) < 4:
        raise ValueError(f"{len(blocks)} windows of the reference have labels and scores, expected 4 or more")
    return blocks


def _columns(records: Sequence[Record]) -> tuple[Floats, Floats]:
    return np.array([r.score for r in records], float), np.array([r.label for r in records], float)


def _isotonic(scores: Floats, labels: Floats) -> Any:
    library = need("sklearn.isotonic", extra="evals")
    fitted = library.IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, labels >= 0.5)
    return fitted.predict


def _off(
    blocks: Sequence[Sequence[Record]], fit: Any, expected: Any, loss: Callable[[Record], float | None]
) -> tuple[float, float, float]:
    """Return by how much estimates of windows are off (standard deviation), rows per window, t quantile.

    Each half of the reference is estimated from the other.
    """
    middle = len(blocks) // 2
    halves = (blocks[:middle], blocks[middle:])
    misses, sizes = [], []
    for own, other in (halves, halves[::-1]):
        fitted = fit([record for block in other for record in block])
        for block in own:
            seen = float(np.mean([loss(record) for record in block]))
            misses.append(float(expected(fitted, block).mean()) - seen)
            sizes.append(len(block))
    spread = math.sqrt(float(np.mean(np.square(misses))))
    return spread, float(np.mean(sizes)), t_quantile(len(misses) - 1)


def _figure(rows: Floats, error: tuple[float, float, float]) -> Estimated:
    if not len(rows):
        return Estimated(math.nan, math.nan, math.nan, 0, ASSUMPTION)
    spread, size, quantile = error
    reach = quantile * spread * math.sqrt(max(1.0, size / len(rows)))
    value = float(rows.mean())
    return Estimated(value, value - reach, value + reach, len(rows), ASSUMPTION, rows)
