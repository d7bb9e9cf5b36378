"""Figures of a predicted probability: how well it ranks (PR AUC), and whether it means what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trilith_evals.case import Case, Output
from trilith_evals.scorers.predictor import PredictorMetric, RocAuc
from trilith_evals.scorers.weighing import Averaged, Summed, Weigher, defined, numbers


@dataclass(frozen=True, slots=True)
class _Probability(RocAuc):
    def pair(self, case: Case, output: Output) -> tuple[int, float]:
        """Return the expected class and the positive class's probability."""
        truth, score = RocAuc.pair(self, case, output)
        if not 0 <= score <= 1:
            raise ValueError("the prediction is no probability, expected from 0 to 1")
        return truth, score


@dataclass(frozen=True, slots=True)
class PrAuc(RocAuc):
    """Average precision of the positive class's score: the area under the precision-recall steps."""

    name: ClassVar[str] = "pr_auc"

    def weighted(self, truths: Sequence[int], predictions: Sequence[float]) -> Weigher:
        """Return the figure as a function of the rows' weights."""
        numpy = numbers()
        truth, score = numpy.asarray(truths), numpy.asarray(predictions, float)
        order = numpy.argsort(-score, kind="stable")
        ranked, right = score[order], truth[order] == 1
        last = numpy.flatnonzero(numpy.append(ranked[1:] != ranked[:-1], True))

        def weigh(weights: Any) -> Any:
            drawn = weights[:, order]
            hits = numpy.cumsum(drawn * right, axis=1)[:, last]
            seen = numpy.cumsum(drawn, axis=1)[:, last]
            gains = numpy.diff(hits, axis=1, prepend=0)
            with numpy.errstate(divide="ignore", invalid="ignore"):
                precision = numpy.where(seen > 0, hits / seen, 0)
                return (precision * gains).sum(axis=1) / hits[:, -1]

        return weigh

    def value(self, truths: Sequence[int], predictions: Sequence[float]) -> float:
        """Return the figure."""
        return defined(
            self.weighted(truths, predictions), len(truths), "PR AUC is undefined without a positive row"
        )


@dataclass(frozen=True, slots=True)
class LogLoss(Averaged, _Probability):
    """Mean of minus the logarithm of the probability that the truth was given."""

    name: ClassVar[str] = "log_loss"
    higher_is_better: ClassVar[bool] = False

    def each(self, truths: Sequence[int], predictions: Sequence[float]) -> Any:
        """Return the loss; a certainty that is wrong costs 36, as in scikit-learn."""
        numpy = numbers()
        tiny = numpy.finfo(float).eps
        given = numpy.where(numpy.asarray(truths) == 1, predictions, 1 - numpy.asarray(predictions, float))
        return -numpy.log(given.clip(tiny, 1 - tiny))


@dataclass(frozen=True, slots=True)
class Brier(Averaged, _Probability):
    """Mean squared distance between the probability and the truth."""

    name: ClassVar[str] = "brier"
    higher_is_better: ClassVar[bool] = False

    def each(self, truths: Sequence[int], predictions: Sequence[float]) -> Any:
        """Return the squared distance."""
        numpy = numbers()
        return (numpy.asarray(truths, float) - numpy.asarray(predictions, float)) ** 2


@dataclass(frozen=True, slots=True)
class CalibrationError(Summed, _Probability):
    """Expected calibration error: how far bins' mean probability is from their share of positives.

    Bins hold about equally many rows. Noise alone makes a bin look wrong, so the square of each bin's gap
    is lowered by the variance of its share (Kumar et al. 2019, the debiased estimator, of l2 calibration).
    """

    bins: int = 10
    """Into so many bins the rows are cut."""
    name: ClassVar[str] = "calibration_error"
    higher_is_better: ClassVar[bool] = False

    def __post_init__(self) -> None:
        PredictorMetric.__post_init__(self)
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}, expected 1 or more")

    def terms(self, truths: Sequence[int], predictions: Sequence[float]) -> Any:
        """Return for each bin one, the truth and the probability of the rows in it."""
        numpy = numbers()
        truth, score = numpy.asarray(truths, float), numpy.asarray(predictions, float)
        edges = numpy.unique(numpy.quantile(score, numpy.arange(1, self.bins) / self.bins))
        inside = numpy.searchsorted(edges, score, side="right")[:, None] == numpy.arange(len(edges) + 1)
        return numpy.concatenate([inside, inside * truth[:, None], inside * score[:, None]], axis=1)

    def combined(self, sums: Any) -> Any:
        """Return the root of the weighted mean of the bins' debiased squared gaps."""
        numpy = numbers()
        n, positives, total = numpy.split(sums, 3, axis=1)
        share, said = positives / n, total / n
        squared = (share - said) ** 2 - share * (1 - share) / numpy.maximum(n - 1, 1)
        mean = numpy.where(n > 0, squared * n, 0).sum(axis=1) / n.sum(axis=1)
        return numpy.sqrt(numpy.maximum(mean, 0))


@dataclass(frozen=True, slots=True)
class CalibrationSlope(_Probability):
    """Slope of the truth's log odds on the predicted ones; 1 is right, below 1 is too sure of itself."""

    name: ClassVar[str] = "calibration_slope"
    higher_is_better: ClassVar[bool] = True
    part: ClassVar[int] = 1

    def weighted(self, truths: Sequence[int], predictions: Sequence[float]) -> Weigher:
        """Return the figure as a function of the rows' weights: a logistic regression by Newton's steps."""
        numpy = numbers()
        truth = numpy.asarray(truths, float)
        odds = numpy.asarray(predictions, float).clip(1e-9, 1 - 1e-9)
        x = numpy.log(odds / (1 - odds))

        def fitted(w: Any) -> float:
            if x[w > 0].min() == x[w > 0].max() or len(set(truth[w > 0])) < 2:
                return float("nan")
            at = numpy.array([0.0, 1.0])
            design = numpy.stack([numpy.ones(len(x)), x])
            for _ in range(50):
                p = 1 / (1 + numpy.exp(-(at @ design).clip(-500, 500)))
                curvature = (design * (w * p * (1 - p))) @ design.T
                if numpy.linalg.cond(curvature) > 1e12:  # the classes can be told apart: no finite slope
                    return float("nan")
                step = numpy.linalg.solve(curvature, design @ (w * (truth - p)))
                at = at + step
                if abs(step).max() < 1e-9:
                    return float(at[self.part])
            return float("nan")

        return lambda weights: numpy.array([fitted(row) for row in weights])

    def value(self, truths: Sequence[int], predictions: Sequence[float]) -> float:
        """Return the figure."""
        undefined = "no logistic line fits: one class, one probability, or classes that part cleanly"
        return defined(self.weighted(truths, predictions), len(truths), undefined)


@dataclass(frozen=True, slots=True)
class CalibrationIntercept(CalibrationSlope):
    """Intercept of the same line; 0 is right, above 0 the probabilities are too low."""

    name: ClassVar[str] = "calibration_intercept"
    part: ClassVar[int] = 0
