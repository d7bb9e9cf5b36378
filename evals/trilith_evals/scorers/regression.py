"""More figures of predicted numbers: relative, median and quantile errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trilith_evals.scorers.predictor import _Figure, _Regression, _sklearn
from trilith_evals.scorers.weighing import Summed, numbers


class Mape(Summed, _Regression):
    """Mean of the absolute error as a share of the truth; undefined where a truth is 0."""

    __slots__ = ()
    name: ClassVar[str] = "mape"
    higher_is_better: ClassVar[bool] = False
    undefined: ClassVar[str] = "MAPE is undefined where an expected value is 0; take smape or mae"  # type: ignore[misc]

    def terms(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return one and the relative error."""
        numpy = numbers()
        truth, predicted = numpy.asarray(truths, float), numpy.asarray(predictions, float)
        with numpy.errstate(divide="ignore", invalid="ignore"):
            error = numpy.where(truth == 0, numpy.nan, abs(truth - predicted) / abs(truth))
        return numpy.stack([numpy.ones(len(truth)), error], axis=1)

    def combined(self, sums: Any) -> Any:
        """Return the mean."""
        return sums[:, 1] / sums[:, 0]


class Smape(Mape):
    """Mean of the error over the mean size of truth and prediction, from 0 to 2; 0 where both are 0."""

    __slots__ = ()
    name: ClassVar[str] = "smape"

    def terms(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return one and the symmetric relative error."""
        numpy = numbers()
        truth, predicted = numpy.asarray(truths, float), numpy.asarray(predictions, float)
        size = (abs(truth) + abs(predicted)) / 2
        error = abs(truth - predicted) / numpy.where(size == 0, 1, size)
        return numpy.stack([numpy.ones(len(truth)), error], axis=1)


class MedianError(_Regression):
    """Median of the absolute error, in the target's unit."""

    __slots__ = ()
    name: ClassVar[str] = "medae"
    higher_is_better: ClassVar[bool] = False

    def value(self, truths: Sequence[float], predictions: Sequence[float]) -> float:
        """Return the figure."""
        return float(_sklearn().median_absolute_error(truths, predictions))


@dataclass(frozen=True, slots=True)
class Pinball(Summed, _Regression):
    """Mean loss of a predicted quantile; at 0.5 it is half the mean absolute error."""

    quantile: float = 0.5
    """Which quantile the target predicts, between 0 and 1."""
    name: ClassVar[str] = "pinball"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _Figure.__post_init__(self)
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}, expected between 0 and 1")

    def terms(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return one and the loss."""
        numpy = numbers()
        over = numpy.asarray(truths, float) - numpy.asarray(predictions, float)
        loss = numpy.maximum(self.quantile * over, (self.quantile - 1) * over)
        return numpy.stack([numpy.ones(len(over)), loss], axis=1)

    def combined(self, sums: Any) -> Any:
        """Return the mean."""
        return sums[:, 1] / sums[:, 0]
