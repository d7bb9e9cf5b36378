"""Gaps between groups of cases: whom a classifier selects, and for whom it is right.

Groups come from a tag of the case. Every figure is the gap between the two groups furthest apart (or the
worst group's own figure). With groups of a few rows the largest gap is mostly noise, so a group below
`min_group` makes the figure undefined, and the message says which.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trilith_evals.case import Case, Output
from trilith_evals.scorers.predictor import PredictorMetric
from trilith_evals.scorers.weighing import Weigher, Weighted, numbers

Truth = tuple[str, str]
"""Group and expected class."""


@dataclass(frozen=True, slots=True)
class _Gap(Weighted, PredictorMetric):
    by: str = ""
    """The tag with the group."""
    positive: str = "1"
    """The class that selects, as text."""
    min_group: int = 20
    """Fewest rows of a group, and of the truths in it that a rate is a share of."""
    higher_is_better: ClassVar[bool] = False
    stem: ClassVar[str]
    undefined: ClassVar[str] = "a group has no row that the rate is a share of"  # type: ignore[misc]

    def __post_init__(self) -> None:
        PredictorMetric.__post_init__(self)
        if not self.by:
            raise ValueError("by is missing, expected the name of a tag")
        if self.min_group < 1:
            raise ValueError(f"min_group is {self.min_group}, expected 1 or more")

    @property
    def name(self) -> str:
        """The metric's name, for example `parity_gap[region]`."""
        return f"{self.stem}[{self.by}]"

    def pair(self, case: Case, output: Output) -> tuple[Truth, str]:
        """Return group and expected class, and the predicted class."""
        if self.by not in case.tags:
            raise ValueError(f"the case has no tag {self.by!r}")
        truth, said = self._classes(case, output)
        return (case.tags[self.by], truth), said

    def loss(self, truth: Truth, predicted: str) -> float:
        """Return 1 for a wrong class."""
        return float(truth[1] != predicted)

    @abstractmethod
    def rates(self, n: Any, said: Any, wanted: Any, hits: Any) -> Sequence[tuple[Any, Any]]:
        """Return pairs of how many and of how many, each `(resamples, groups)`."""

    def gap(self, rates: Sequence[Any]) -> Any:
        """Return the figures from rates `(resamples, groups)`: the largest difference."""
        return numbers().stack([rate.max(axis=1) - rate.min(axis=1) for rate in rates]).max(axis=0)

    def weighted(self, truths: Sequence[Truth], predictions: Sequence[str]) -> Weigher:
        """Return the figure as a function of the rows' weights.

        Raises:
            ValueError: there is one group only, or one is too small.
        """
        numpy = numbers()
        groups = sorted({group for group, _ in truths})
        member = numpy.array([[group == one for one in groups] for group, _ in truths], float)
        wanted = numpy.array([[truth == self.positive] for _, truth in truths], float)
        said = numpy.array([[one == self.positive] for one in predictions], float)
        terms = [member, member * said, member * wanted, member * wanted * said]
        self._check(truths, [term.sum(axis=0)[None] for term in terms], groups)

        def weigh(weights: Any) -> Any:
            sums = [weights @ term for term in terms]
            with numpy.errstate(divide="ignore", invalid="ignore"):
                return self.gap([above / below for above, below in self.rates(*sums)])

        return weigh

    def _check(self, truths: Sequence[Truth], sums: Sequence[Any], groups: Sequence[str]) -> None:
        if len(groups) < 2:
            raise ValueError(f"all rows have one {self.by!r}; a gap needs two groups")
        count = Counter(group for group, _ in truths)
        smallest = min(groups, key=lambda group: count[group])
        if count[smallest] < self.min_group:
            raise ValueError(
                f"the smallest group {self.by}={smallest} has {count[smallest]} rows, "
                f"expected {self.min_group} or more"
            )
        for _, below in self.rates(*sums):
            at = int(below[0].argmin())
            if below[0, at] < self.min_group:
                raise ValueError(
                    f"in {self.by}={groups[at]} the rate is a share of {int(below[0, at])} rows only, "
                    f"expected {self.min_group} or more"
                )


@dataclass(frozen=True, slots=True)
class ParityGap(_Gap):
    """Demographic parity: the largest difference between groups' shares of selected rows."""

    stem: ClassVar[str] = "parity_gap"

    def rates(self, n: Any, said: Any, wanted: Any, hits: Any) -> Sequence[tuple[Any, Any]]:
        """Return the selection rate."""
        return [(said, n)]


@dataclass(frozen=True, slots=True)
class ParityRatio(ParityGap):
    """The smallest selection rate over the largest; 0.8 is the four-fifths rule. 1 means no gap."""

    stem: ClassVar[str] = "parity_ratio"
    higher_is_better: ClassVar[bool] = True
    undefined: ClassVar[str] = "no group has a selected row"  # type: ignore[misc]

    def gap(self, rates: Sequence[Any]) -> Any:
        """Return the ratio."""
        return rates[0].min(axis=1) / rates[0].max(axis=1)


@dataclass(frozen=True, slots=True)
class OpportunityGap(_Gap):
    """Equal opportunity: the largest difference between groups' true positive rates."""

    stem: ClassVar[str] = "opportunity_gap"

    def rates(self, n: Any, said: Any, wanted: Any, hits: Any) -> Sequence[tuple[Any, Any]]:
        """Return the true positive rate."""
        return [(hits, wanted)]


@dataclass(frozen=True, slots=True)
class OddsGap(_Gap):
    """Equalised odds: the larger of the gaps of true and of false positive rates."""

    stem: ClassVar[str] = "odds_gap"

    def rates(self, n: Any, said: Any, wanted: Any, hits: Any) -> Sequence[tuple[Any, Any]]:
        """Return the true and the false positive rate."""
        return [(hits, wanted), (said - hits, n - wanted)]


@dataclass(frozen=True, slots=True)
class WorstGroup(_Gap):
    """Accuracy of the group for which it is lowest; `positive` against the rest."""

    stem: ClassVar[str] = "worst_group_accuracy"
    higher_is_better: ClassVar[bool] = True

    def rates(self, n: Any, said: Any, wanted: Any, hits: Any) -> Sequence[tuple[Any, Any]]:
        """Return the accuracy."""
        return [(n - said - wanted + 2 * hits, n)]

    def gap(self, rates: Sequence[Any]) -> Any:
        """Return the lowest."""
        return rates[0].min(axis=1)
