"""More figures of predicted numbers: relative, median and quantile errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trilith_evals.scorers.predictor import PredictorMetric, RegressionMetric, sklearn_metrics
from trilith_evals.scorers.weighing import Averaged, Weigher, numbers


class Mape(Averaged, RegressionMetric):
    """Mean of the absolute error as a share of the truth; undefined where a truth is 0."""

    __slots__ = ()
    name: ClassVar[str] = "mape"
    higher_is_better: ClassVar[bool] = False
    undefined: ClassVar[str] = "MAPE is undefined where an expected value is 0; take smape or mae"  # type: ignore[misc]

    def each(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return the relative error."""
        numpy = numbers()
        truth, predicted = numpy.asarray(truths, float), numpy.asarray(predictions, float)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            return numpy.where(truth == 0, numpy.nan, abs(truth - predicted) / abs(truth))


class Smape(Mape):
    """Mean of the error over the mean size of truth and prediction, from 0 to 2; 0 where both are 0."""

    __slots__ = ()
    name: ClassVar[str] = "smape"

    def each(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return the symmetric relative error."""
        numpy = numbers()
        truth, predicted = numpy.asarray(truths, float), numpy.asarray(predictions, float)
        size = (abs(truth) + abs(predicted)) / 2
        return abs(truth - predicted) / numpy.where(size == 0, 1, size)


class MedianError(RegressionMetric):
    """Median of the absolute error, in the target's unit."""

    __slots__ = ()
    name: ClassVar[str] = "medae"
    higher_is_better: ClassVar[bool] = False

    def value(self, truths: Sequence[float], predictions: Sequence[float]) -> float:
        """Return the figure."""
        return float(sklearn_metrics().median_absolute_error(truths, predictions))

    def weighted(self, truths: Sequence[float], predictions: Sequence[float]) -> Weigher:
        """Return the figure as a function of the rows' weights, which are whole numbers."""
        numpy = numbers()
        errors = abs(numpy.asarray(truths, float) - numpy.asarray(predictions, float))
        order = numpy.argsort(errors)
        ranked = errors[order]

        def weigh(weights: Any) -> Any:
            seen = numpy.cumsum(weights[:, order], axis=1)
            half = seen[:, -1:] / 2
            # The middle one, or the mean of both where there are two.
            below, above = (ranked[reached.argmax(axis=1)] for reached in (seen >= half, seen > half))
            return (below + above) / 2

        return weigh


@dataclass(frozen=True, slots=True)
class Pinball(Averaged, RegressionMetric):
    """Mean loss of a predicted quantile; at 0.5 it is half the mean absolute error."""

    quantile: float = 0.5
    """Which quantile the target predicts, between 0 and 1."""
    name: ClassVar[str] = "pinball"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        PredictorMetric.__post_init__(self)
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}, expected between 0 and 1")

    def each(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return the loss."""
        numpy = numbers()
        over = numpy.asarray(truths, float) - numpy.asarray(predictions, float)
        return numpy.maximum(self.quantile * over, (self.quantile - 1) * over)
