"""Figures of predicted classes beyond accuracy: precision, recall, F1, MCC, balanced accuracy.

All come from the confusion matrix, whose cells are sums over the rows. Classes are compared as text, as
`accuracy` does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trilith_evals.case import Case, Output
from trilith_evals.scorers.predictor import PredictorMetric
from trilith_evals.scorers.weighing import Weigher, Weighted, numbers


@dataclass(frozen=True, slots=True)
class _Confusion(Weighted, PredictorMetric):
    higher_is_better: ClassVar[bool] = True

    def pair(self, case: Case, output: Output) -> tuple[str, str]:
        """Return the expected and the predicted class."""
        return self._classes(case, output)

    def loss(self, truth: str, predicted: str) -> float:
        """Return 1 for a wrong class."""
        return float(truth != predicted)

    def weighted(self, truths: Sequence[str], predictions: Sequence[str]) -> Weigher:
        """Return the figure as a function of the rows' weights, by way of the confusion matrix."""
        numpy = numbers()
        classes = sorted({*truths, *predictions})
        at = {name: i for i, name in enumerate(classes)}
        size = len(classes)
        cells = numpy.array([at[t] * size + at[p] for t, p in zip(truths, predictions, strict=True)])

        def weigh(weights: Any) -> Any:
            matrices = numpy.stack([numpy.bincount(cells, row, size * size) for row in weights])
            with numpy.errstate(divide="ignore", invalid="ignore"):
                return self._of(matrices.reshape(-1, size, size), classes)

        return weigh

    @abstractmethod
    def _of(self, matrices: Any, classes: Sequence[str]) -> Any:
        """Return the figures from matrices `(resamples, truth, predicted)`."""


@dataclass(frozen=True, slots=True)
class _Averaged(_Confusion):
    average: Literal["macro", "micro", "weighted"] = "macro"
    """Over classes alike (macro), over rows (micro), or over classes by how many rows they have."""
    label: str | None = None
    """One class, whose figure it then is; `average` is not looked at."""
    stem: ClassVar[str]
    undefined: ClassVar[str] = "no row has the class that is asked for"  # type: ignore[misc]

    @property
    def name(self) -> str:
        """The metric's name, for example `class_f1_macro` or `class_recall[fraud]`."""
        return f"{self.stem}[{self.label}]" if self.label is not None else f"{self.stem}_{self.average}"

    def _of(self, matrices: Any, classes: Sequence[str]) -> Any:
        numpy = numbers()
        hits = numpy.diagonal(matrices, axis1=1, axis2=2)
        wanted, said = matrices.sum(axis=2), matrices.sum(axis=1)
        if self.label is not None:
            if self.label not in classes:
                return numpy.full(len(matrices), numpy.nan)
            one = classes.index(self.label)
            return self._ratio(hits[:, one], wanted[:, one], said[:, one], empty=numpy.nan)
        if self.average == "micro":
            return self._ratio(hits.sum(axis=1), wanted.sum(axis=1), said.sum(axis=1), empty=numpy.nan)
        # As scikit-learn does with zero_division=0: a class that is never said has precision 0. A class that
        # a resample holds in no way is no class of it.
        each = self._ratio(hits, wanted, said, empty=0.0)
        shares = (wanted + said > 0) if self.average == "macro" else wanted
        return (each * shares).sum(axis=1) / shares.sum(axis=1)

    def _ratio(self, hits: Any, wanted: Any, said: Any, *, empty: float) -> Any:
        numpy = numbers()
        above, below = {
            "class_precision": (hits, said),
            "class_recall": (hits, wanted),
            "class_f1": (2 * hits, wanted + said),
        }[self.stem]
        return numpy.where(below > 0, above / below, empty)


@dataclass(frozen=True, slots=True)
class ClassPrecision(_Averaged):
    """Of the rows that are called a class, the share that are of it."""

    stem: ClassVar[str] = "class_precision"


@dataclass(frozen=True, slots=True)
class ClassRecall(_Averaged):
    """Of the rows of a class, the share that are called so."""

    stem: ClassVar[str] = "class_recall"


@dataclass(frozen=True, slots=True)
class ClassF1(_Averaged):
    """Harmonic mean of precision and recall."""

    stem: ClassVar[str] = "class_f1"


@dataclass(frozen=True, slots=True)
class BalancedAccuracy(_Confusion):
    """Mean of the classes' recalls, over the classes that are expected somewhere."""

    name: ClassVar[str] = "balanced_accuracy"
    undefined: ClassVar[str] = "balanced accuracy needs two expected classes"  # type: ignore[misc]

    def _of(self, matrices: Any, classes: Sequence[str]) -> Any:
        numpy = numbers()
        wanted = matrices.sum(axis=2)
        recalls = numpy.where(wanted > 0, numpy.diagonal(matrices, axis1=1, axis2=2) / wanted, 0.0)
        there = (wanted > 0).sum(axis=1)
        return numpy.where(there > 1, recalls.sum(axis=1) / there, numpy.nan)


@dataclass(frozen=True, slots=True)
class Mcc(_Confusion):
    """Matthews' correlation of expected and predicted classes (Gorodkin 2004 for more than two)."""

    name: ClassVar[str] = "mcc"
    undefined: ClassVar[str] = "MCC is undefined when all are of one class, or all are called one"  # type: ignore[misc]

    def _of(self, matrices: Any, classes: Sequence[str]) -> Any:
        numpy = numbers()
        wanted, said = matrices.sum(axis=2), matrices.sum(axis=1)
        n = wanted.sum(axis=1)
        right = numpy.diagonal(matrices, axis1=1, axis2=2).sum(axis=1)
        spread = (n**2 - (wanted**2).sum(axis=1)) * (n**2 - (said**2).sum(axis=1))
        return (right * n - (wanted * said).sum(axis=1)) / numpy.sqrt(spread)
