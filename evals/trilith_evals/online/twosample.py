"""Whether a window's features are spread as the reference's are, one feature at a time.

Rows that follow each other are alike, so the textbook null of these tests is far too narrow and everything
"drifts". The null here is made from the reference itself: contiguous pieces of it, as long as the window,
against the whole (a moving-block bootstrap, Künsch 1989, one block per window), once per size of window.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from trilith_evals.comparison import benjamini_hochberg
from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.record import Floats, Reference, Window, as_numbers, is_number

DRAWS = 199
_MOST_CATEGORIES = 50
"""Rarer ones count together."""
_FEW_ROWS = 20
_GRID = (np.arange(200) + 0.5) / 200
"""Where quantiles are compared."""


class Numeric:
    """Kolmogorov-Smirnov over the reference's ranks, and how far the bulk moved."""

    def __init__(self, values: Sequence[Any]) -> None:
        """Take the reference's values in the order of time."""
        self._given = as_numbers(values)
        self._sorted = np.sort(self._given)
        present = self._sorted[np.isfinite(self._sorted)]
        self.low, self.high = (float(present[0]), float(present[-1])) if len(present) else (0.0, 0.0)
        self.ranks = self.place(self._given)
        self._spread = float(present.std()) if len(present) else 0.0
        if self._spread <= 1e-9 * max(abs(self.low), abs(self.high)):
            self._spread = 0.0  # one value only: there is no unit
        self._quantiles = np.quantile(present, _GRID) if len(present) else np.zeros(len(_GRID))
        self._steps, places = np.unique(self.ranks, return_index=False), np.sort(self.ranks)
        self._share = np.searchsorted(places, self._steps, side="right") / len(places)

    def place(self, values: Floats) -> Floats:
        """Return where values stand among the reference's, from 0 to 1; ties stand in their middle."""
        left = np.searchsorted(self._sorted, values, side="left")
        right = np.searchsorted(self._sorted, values, side="right")
        placed: Floats = (left + right) / (2 * len(self._sorted))
        return placed

    def statistic(self, ranks: Floats) -> float:
        """Return the largest gap between the two distribution functions."""
        ordered = np.sort(ranks)
        seen = np.searchsorted(ordered, self._steps, side="right") / len(ordered)
        before = np.searchsorted(ordered, self._steps, side="left") / len(ordered)
        share_before = np.concatenate(([0.0], self._share[:-1]))
        return float(max(np.abs(seen - self._share).max(), np.abs(before - share_before).max()))

    def encode(self, values: Sequence[Any]) -> Floats:
        """Return a window's values as ranks."""
        return self.place(as_numbers(values))

    def effect(self, ranks: Floats) -> float:
        """Return the population stability index over the reference's tenths."""
        edges = np.unique(np.quantile(self.ranks, np.linspace(0, 1, 11)[1:-1]))
        return psi(
            np.bincount(np.searchsorted(edges, self.ranks), minlength=len(edges) + 1),
            np.bincount(np.searchsorted(edges, ranks), minlength=len(edges) + 1),
        )

    def distance(self, values: Sequence[Any]) -> float | None:
        """Return Wasserstein's distance (the mean gap of quantiles) in the reference's standard deviations.

        None where the reference has one value only, or the window has none.
        """
        numbers = as_numbers(values)
        present = numbers[np.isfinite(numbers)]
        if not len(present) or not self._spread:
            return None
        return float(np.abs(np.quantile(present, _GRID) - self._quantiles).mean() / self._spread)

    def unseen(self, values: Sequence[Any]) -> float:
        """Return the share of values that lie outside all of the reference's."""
        numbers = as_numbers(values)
        missing = ~np.isfinite(numbers)
        known_missing = bool((~np.isfinite(self._sorted)).any())
        outside = (numbers < self.low) | (numbers > self.high)
        outside[missing] = not known_missing
        return float(outside.mean())


class Category:
    """Total variation between shares of categories."""

    def __init__(self, values: Sequence[Any]) -> None:
        """Take the reference's values in the order of time."""
        kept = [name for name, _ in Counter(map(str, values)).most_common(_MOST_CATEGORIES)]
        self._known = set(map(str, values))
        self._codes = {name: code for code, name in enumerate(kept)}
        self.ranks = self.encode(values)
        self._counts = self._counted(self.ranks)
        self._share = self._counts / len(self.ranks)

    def encode(self, values: Sequence[Any]) -> Floats:
        """Return codes; all that is rare or new has the last one."""
        return np.array([self._codes.get(str(value), len(self._codes)) for value in values], float)

    def statistic(self, ranks: Floats) -> float:
        """Return half the summed differences of shares."""
        return float(np.abs(self._counted(ranks) / len(ranks) - self._share).sum() / 2)

    def effect(self, ranks: Floats) -> float:
        """Return the population stability index."""
        return psi(self._counts, self._counted(ranks))

    def distance(self, values: Sequence[Any]) -> float | None:
        """Return None: categories have no distance."""
        return None

    def unseen(self, values: Sequence[Any]) -> float:
        """Return the share of values that the reference has never had."""
        return float(np.mean([str(value) not in self._known for value in values]))

    def _counted(self, codes: Floats) -> Any:
        return np.bincount(codes.astype(int), minlength=len(self._codes) + 1)


def psi(expected: Any, found: Any) -> float:
    """Return the population stability index of two rows of counts; half a count is added to each."""
    a = (np.asarray(expected) + 0.5) / (np.sum(expected) + 0.5 * len(expected))
    b = (np.asarray(found) + 0.5) / (np.sum(found) + 0.5 * len(found))
    return float(((b - a) * np.log(b / a)).sum())


def pieces(count: int, size: int, draws: int, generator: np.random.Generator) -> list[slice]:
    """Return contiguous pieces of a sequence, drawn at random."""
    last = max(1, count - size + 1)
    starts = range(last) if last <= draws else generator.integers(last, size=draws)
    return [slice(int(start), int(start) + size) for start in starts]


def tail(statistic: float, null: Floats, independent: float) -> float:
    """Return the chance of a statistic as large under a null of overlapping draws.

    The share of draws cannot speak beyond them, and draws that overlap are not as many as they seem. So the
    null's own spread is taken with Student's t on the number of pieces that do not overlap; and never is the
    answer below what the share of draws says.
    """
    from scipy.special import stdtr

    share = (1 + int((null >= statistic).sum())) / (1 + len(null))
    spread, pieces_apart = float(null.std(ddof=1)) if len(null) > 1 else 0.0, max(2.0, independent)
    if spread == 0:
        return share if statistic <= null.max() else 1 / (1 + pieces_apart)
    t = (statistic - float(null.mean())) / (spread * math.sqrt(1 + 1 / pieces_apart))
    return float(max(1.0 - stdtr(pieces_apart - 1, t), 1e-12)) if t > 0 else max(0.5, share)


class FeatureDrift:
    """Every feature against the reference, with the false discovery rate held over them."""

    def __init__(
        self, reference: Reference, *, fdr: float = 0.05, least_psi: float = 0.1, seed: int = 0
    ) -> None:
        """Take the reference.

        Args:
            reference: What is normal.
            fdr: Share of false ones among the features that are said to have moved.
            least_psi: A move that is smaller is not worth a notice, however sure it is; 0.1 is the
                customary border of "small".
            seed: Of the bootstrap.
        """
        self._fdr, self._least, self._seed = fdr, least_psi, seed
        self._n = len(reference.records)
        self._features: dict[str, Numeric | Category] = {}
        for name in reference.features:
            column = [record.features.get(name) for record in reference.records]
            self._features[name] = Numeric(column) if is_number(column) else Category(column)
        self._nulls: dict[tuple[str, int], Floats] = {}

    def update(self, batch: Window) -> list[Finding]:
        """Return a finding per feature, those that moved most first."""
        if len(batch.records) < _FEW_ROWS:
            few = f"{len(batch.records)} rows, expected {_FEW_ROWS} or more"
            return [Finding(Kind.NO_EVIDENCE, "feature", "", batch.start, batch.end, few)]
        rows = []
        for name, feature in self._features.items():
            ranks = feature.encode(batch.column(name))
            statistic = feature.statistic(ranks)
            rows.append(
                (name, statistic, self._p(name, feature, statistic, len(ranks)), feature.effect(ranks))
            )
        found = []
        for (name, statistic, _, size), p in zip(
            rows, benjamini_hochberg([row[2] for row in rows]), strict=True
        ):
            moved = p <= self._fdr and size >= self._least
            found.append(
                Finding(
                    Kind.NOTICE if moved else Kind.QUIET,
                    "feature",
                    name,
                    batch.start,
                    batch.end,
                    f"{name} {'moved' if moved else 'is as it was'} (psi {size:.2f})",
                    statistic=statistic,
                    p=p,
                    value=size,
                    distance=self._features[name].distance(batch.column(name)),
                    n=len(batch.records),
                )
            )
        return sorted(found, key=lambda finding: -(finding.value or 0))

    def unseen(self, batch: Window, most: float, kind: Kind = Kind.ALARM) -> list[Finding]:
        """Say for which features more than a share of values lies outside all of the reference's."""
        found = []
        for name, feature in self._features.items():
            share = feature.unseen(batch.column(name)) if batch.records else 0.0
            over = share > most
            found.append(
                Finding(
                    kind if over else Kind.QUIET,
                    "unseen",
                    name,
                    batch.start,
                    batch.end,
                    f"{share:.0%} of {name} lies outside all that the reference has",
                    value=share,
                    n=len(batch.records),
                )
            )
        return found

    def _p(self, name: str, feature: Numeric | Category, statistic: float, n: int) -> float:
        size = min(rounded(n), max(2, self._n // 2))
        if (name, size) not in self._nulls:
            generator = np.random.default_rng(self._seed)
            drawn = [feature.statistic(feature.ranks[cut]) for cut in pieces(self._n, size, DRAWS, generator)]
            self._nulls[name, size] = np.array(drawn)
        return tail(statistic, self._nulls[name, size], self._n / size)


def rounded(n: int) -> int:
    """Return a size near to n, of which there are few: half powers of two, rounded down (a wider null)."""
    return int(2 ** (math.floor(2 * math.log2(n)) / 2))
