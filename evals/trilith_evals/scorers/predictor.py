"""Figures over a whole suite of predictions, computed by scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trilith.extras import need
from trilith.types import Json
from trilith_evals.case import Case, Output
from trilith_evals.scorer import require
from trilith_evals.scorers.weighing import Averaged, Summed, Weigher, numbers


@dataclass(frozen=True, slots=True)
class PredictorMetric:
    """A figure over a predictor's outputs."""

    output: str | None = None
    """Which of the predictor's outputs; None takes the first."""

    def __post_init__(self) -> None:
        require("sklearn")

    def _predicted(self, output: Output) -> Json:
        if self.output is None:
            value = output.value
        elif self.output in output.values:
            value = output.values[self.output]
        else:
            has = ", ".join(output.values) or "none"
            raise ValueError(f"the target has no output {self.output!r}, expected one of {has}")
        single: Json = value[0] if isinstance(value, list) and len(value) == 1 else value
        return single

    def _classes(self, case: Case, output: Output) -> tuple[str, str]:
        """Return the expected and the predicted class, compared as text (1 and 1.0 are one class)."""
        said = class_label(self._predicted(output), "prediction")
        return class_label(case.expected, "expected answer"), said


class RegressionMetric(PredictorMetric):
    """Truth and prediction are numbers."""

    __slots__ = ()

    def pair(self, case: Case, output: Output) -> tuple[float, float]:
        """Return the expected and the predicted number."""
        return _number(case.expected, "expected answer"), _number(self._predicted(output), "prediction")

    def loss(self, truth: float, predicted: float) -> float:
        """Return the absolute error, in the target's unit."""
        return abs(truth - predicted)


class Mae(Averaged, RegressionMetric):
    """Mean absolute error, in the target's unit."""

    __slots__ = ()
    name: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False

    def each(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return the absolute error of each row."""
        numpy = numbers()
        return abs(numpy.asarray(truths, float) - numpy.asarray(predictions, float))

    def value(self, truths: Sequence[float], predictions: Sequence[float]) -> float:
        """Return the figure."""
        return float(sklearn_metrics().mean_absolute_error(truths, predictions))


class Rmse(Averaged, RegressionMetric):
    """Root of the mean squared error, in the target's unit."""

    __slots__ = ()
    name: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def each(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return the squared error of each row."""
        numpy = numbers()
        return (numpy.asarray(truths, float) - numpy.asarray(predictions, float)) ** 2

    def combined(self, sums: Any) -> Any:
        """Return the root of the mean."""
        return numbers().sqrt(Averaged.combined(self, sums))

    def value(self, truths: Sequence[float], predictions: Sequence[float]) -> float:
        """Return the figure."""
        return float(sklearn_metrics().root_mean_squared_error(truths, predictions))


class R2(Summed, RegressionMetric):
    """Share of the truth's variance that the predictions explain."""

    __slots__ = ()
    name: ClassVar[str] = "r2"
    higher_is_better: ClassVar[bool] = True

    def terms(self, truths: Sequence[float], predictions: Sequence[float]) -> Any:
        """Return one, the truth and its square, and the squared error; the truth less the mean of all."""
        numpy = numbers()
        truth = numpy.asarray(truths, float)
        error, truth = truth - numpy.asarray(predictions, float), truth - truth.mean()
        return numpy.stack([numpy.ones(len(truth)), truth, truth**2, error**2], axis=1)

    def combined(self, sums: Any) -> Any:
        """Return the share; NaN where a resample's truths are all the same."""
        n, total, squares, errors = sums.T
        spread = squares - total**2 / n
        return numbers().where(spread > 1e-12 * squares, 1 - errors / spread, numbers().nan)

    def value(self, truths: Sequence[float], predictions: Sequence[float]) -> float:
        """Return the figure."""
        if len(set(truths)) < 2:
            raise ValueError("R2 is undefined when all expected values are the same")
        return float(sklearn_metrics().r2_score(truths, predictions))


class Accuracy(Averaged, PredictorMetric):
    """Share of the predicted classes that are right."""

    __slots__ = ()
    name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def each(self, truths: Sequence[str], predictions: Sequence[str]) -> Any:
        """Return 1 for each row that is right, else 0."""
        return numbers().array([t == p for t, p in zip(truths, predictions, strict=True)], float)

    def pair(self, case: Case, output: Output) -> tuple[str, str]:
        """Return the expected and the predicted class, compared as text (1 and 1.0 are one class)."""
        return self._classes(case, output)

    def loss(self, truth: str, predicted: str) -> float:
        """Return 1 for a wrong class."""
        return float(truth != predicted)

    def value(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """Return the figure."""
        return float(sklearn_metrics().accuracy_score(truths, predictions))


@dataclass(frozen=True, slots=True)
class RocAuc(PredictorMetric):
    """Area under the ROC curve of the positive class's score; the expected answer is 0 or 1."""

    column: int = 1
    """Which number of the output is the positive class's, where the output has several."""
    name: ClassVar[str] = "roc_auc"
    higher_is_better: ClassVar[bool] = True

    def pair(self, case: Case, output: Output) -> tuple[int, float]:
        """Return the expected class and the positive class's score."""
        truth = _number(case.expected, "expected answer")
        if truth not in (0, 1):
            raise ValueError("the expected answer is neither 0 nor 1")
        value = self._predicted(output)
        if isinstance(value, list):
            if self.column >= len(value):
                raise ValueError(f"the prediction has no column {self.column}")
            value = value[self.column]
        return int(truth), _number(value, "prediction")

    def loss(self, truth: int, predicted: float) -> float:
        """Return how far the score is from the truth."""
        return abs(truth - predicted)

    def value(self, truths: Sequence[int], predictions: Sequence[float]) -> float:
        """Return the figure."""
        if len(set(truths)) < 2:
            raise ValueError("ROC AUC is undefined when only one class is expected")
        return float(sklearn_metrics().roc_auc_score(truths, predictions))

    def weighted(self, truths: Sequence[int], predictions: Sequence[float]) -> Weigher:
        """Return the figure as a function of the rows' weights; a tied pair is half right."""
        numpy = numbers()
        truth, score = numpy.asarray(truths), numpy.asarray(predictions, float)
        order = numpy.argsort(score, kind="stable")
        ranked, positive = score[order], truth[order] == 1
        first = numpy.flatnonzero(numpy.append(True, ranked[1:] != ranked[:-1]))

        def weigh(weights: Any) -> Any:
            drawn = weights[:, order]
            up = numpy.add.reduceat(drawn * positive, first, axis=1)
            down = numpy.add.reduceat(drawn * ~positive, first, axis=1)
            below = numpy.cumsum(down, axis=1) - down / 2
            with numpy.errstate(divide="ignore", invalid="ignore"):
                return (up * below).sum(axis=1) / (up.sum(axis=1) * down.sum(axis=1))

        return weigh


def _number(value: Json, what: str) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the {what} is not a finite number")
    return number


def class_label(value: Json, what: str) -> str:
    """Return a class as text, as figures of classes compare them; `what` it is stands in the error.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise ValueError(f"the {what} is not a class")


def sklearn_metrics() -> Any:
    """Return `sklearn.metrics`."""
    return need("sklearn.metrics", extra="evals")
