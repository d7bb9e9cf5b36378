"""Whether rows as a whole, or embeddings of texts, are spread as the reference's are.

Maximum mean discrepancy (Gretton and others 2012) with random Fourier features (Rahimi, Recht 2007): linear
in the rows, and the null comes from pieces of the reference as in `twosample`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trilith_evals.online import twosample
from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.record import Floats, Record, Reference, Window

_FEATURES = 128
_MOST_ROWS = 1000
"""Rows that the kernel's width is taken from."""
_FEW_ROWS = 20

Rows = Callable[[tuple[Record, ...]], "Floats | None"]
"""From records to one row of numbers each; None where they have none."""


class Mmd:
    """Distance between the mean feature maps of window and reference."""

    def __init__(
        self, reference: Reference, rows: Rows, *, source: str, alpha: float = 0.01, seed: int = 0
    ) -> None:
        """Take the reference.

        Args:
            reference: What is normal.
            rows: What is compared.
            source: What findings are called.
            alpha: Chance that a window like the reference is said to have moved.
            seed: Of the random features and the bootstrap.
        """
        given = rows(reference.records)
        if given is None or len(given) < 2 * _FEW_ROWS:
            found = 0 if given is None else len(given)
            raise ValueError(f"the reference has {found} rows of {source}, expected {2 * _FEW_ROWS} or more")
        self._rows, self._source, self._alpha = rows, source, alpha
        self._generator = np.random.default_rng(seed)
        self._centre, self._scale = given.mean(0), given.std(0)
        self._scale[self._scale == 0] = 1.0
        scaled = (given - self._centre) / self._scale
        some = scaled[self._generator.integers(len(scaled), size=(_MOST_ROWS, 2))]
        distance = np.median(np.sqrt(((some[:, 0] - some[:, 1]) ** 2).sum(1)))  # the median heuristic
        width = distance if distance > 0 else 1.0
        self._directions = self._generator.standard_normal((given.shape[1], _FEATURES)) / width
        self._phases = self._generator.uniform(0, 2 * np.pi, _FEATURES)
        self._map = self._mapped(given)
        self._mean = self._map.mean(0)
        self._nulls: dict[int, Floats] = {}

    def update(self, batch: Window) -> list[Finding]:
        """Return one finding."""
        given = self._rows(batch.records) if batch.records else None
        if given is None or len(given) < _FEW_ROWS:
            return [Finding(Kind.NO_EVIDENCE, self._source, "rows", batch.start, batch.end, "too few rows")]
        statistic = self._distance(self._mapped(given).mean(0))
        size = min(twosample.rounded(len(given)), len(self._map) // 2)
        p = twosample.tail(statistic, self._null(size), len(self._map) / size)
        moved = p <= self._alpha
        message = f"{self._source} as a whole {'moved' if moved else 'is as it was'}"
        return [
            Finding(
                Kind.NOTICE if moved else Kind.QUIET,
                self._source,
                "rows",
                batch.start,
                batch.end,
                message,
                statistic=statistic,
                p=p,
                n=len(given),
            )
        ]

    def _null(self, size: int) -> Floats:
        if size not in self._nulls:
            sums = np.vstack([np.zeros(_FEATURES), np.cumsum(self._map, axis=0)])
            cuts = twosample.pieces(len(self._map), size, twosample.DRAWS, self._generator)
            self._nulls[size] = np.array(
                [self._distance((sums[cut.stop] - sums[cut.start]) / size) for cut in cuts]
            )
        return self._nulls[size]

    def _distance(self, mean: Floats) -> float:
        return float(np.sqrt(((mean - self._mean) ** 2).sum()))

    def _mapped(self, rows: Floats) -> Floats:
        angles = ((rows - self._centre) / self._scale) @ self._directions + self._phases
        mapped: Floats = np.sqrt(2 / _FEATURES) * np.cos(angles)
        return mapped


def embeddings(records: tuple[Record, ...]) -> Floats | None:
    """Return the records' embeddings."""
    rows = [record.embedding for record in records if record.embedding is not None]
    return np.array(rows, float) if rows else None


def numeric(names: tuple[str, ...], middles: Floats) -> Rows:
    """Return what takes the numeric features; a missing one is the reference's middle."""

    def rows(records: tuple[Record, ...]) -> Floats | None:
        if not records or not names:
            return None
        given = np.array(
            [
                [v if isinstance(v := r.features.get(name), int | float) else np.nan for name in names]
                for r in records
            ],
            float,
        )
        return np.where(np.isfinite(given), given, middles)

    return rows
