"""Figures over a whole suite as functions of weighted sums, so that a bootstrap is a matrix product.

A resample of rows is a vector of weights: how often each row was drawn. Most figures of predictors need only
a few sums over the rows, and all resamples' sums come out of one product.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from trilith.extras import need

Weigher: TypeAlias = Callable[[Any], Any]
"""From weights `(resamples, rows)` to the figure of each resample, NaN where it is undefined."""


class Weighted(ABC):
    """A suite metric whose figure is a function of the rows' weights."""

    __slots__ = ()

    undefined = "the figure is undefined for these rows"
    """Said when it is."""

    @abstractmethod
    def weighted(self, truths: Sequence[Any], predictions: Sequence[Any]) -> Weigher:
        """Return the figure as a function of the rows' weights."""

    def value(self, truths: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return the figure.

        Raises:
            ValueError: it is undefined for these pairs.
        """
        return defined(self.weighted(truths, predictions), len(truths), self.undefined)


class Summed(Weighted):
    """One that is made of sums over the rows."""

    __slots__ = ()

    @abstractmethod
    def terms(self, truths: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return `(rows, terms)`, what each row adds to each sum."""

    @abstractmethod
    def combined(self, sums: Any) -> Any:
        """Return the figures `(resamples,)` from sums `(resamples, terms)`; NaN where undefined."""

    def weighted(self, truths: Sequence[Any], predictions: Sequence[Any]) -> Weigher:
        """Return the figure as a function of the rows' weights."""
        numpy = numbers()
        terms = numpy.asarray(self.terms(truths, predictions), float)

        def weigh(weights: Any) -> Any:
            with numpy.errstate(divide="ignore", invalid="ignore"):
                return self.combined(weights @ terms)

        return weigh


class Averaged(Summed):
    """A suite metric that is a mean over the rows."""

    __slots__ = ()

    @abstractmethod
    def each(self, truths: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return what each row adds to the mean."""

    def terms(self, truths: Sequence[Any], predictions: Sequence[Any]) -> Any:
        """Return one, and what each row adds."""
        each = self.each(truths, predictions)
        return numbers().stack([numbers().ones(len(each)), each], axis=1)

    def combined(self, sums: Any) -> Any:
        """Return the mean."""
        return sums[:, 1] / sums[:, 0]


def defined(weigh: Weigher, rows: int, undefined: str) -> float:
    """Return the figure of the rows themselves.

    Raises:
        ValueError: it is undefined.
    """
    found = float(weigh(numbers().ones((1, rows)))[0])
    if not math.isfinite(found):
        raise ValueError(undefined)
    return found


def numbers() -> Any:
    """Return numpy."""
    return need("numpy", extra="evals")
