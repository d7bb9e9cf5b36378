"""Whether a classifier can tell a window's rows from the reference's (classifier two-sample test).

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", 2017: a model learns to say which rows are the
window's, and is asked about rows that it has not seen (two halves in time learn for each other). Where its
area under the ROC curve is above one half, the two differ, be it in what features do together. Rows next to
each other are alike, so a permutation would find every window new: the null is what pieces of the reference,
as long as the window, give against the rest of it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from trilith.extras import need
from trilith_evals.online import twosample
from trilith_evals.online.encoder import Encoder
from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.record import Floats, Reference, Window

_DRAWS = 39
_MOST_ROWS = 1000
"""Of each side; more are thinned evenly."""
_FEW_ROWS = 40

Learner = Literal["logistic", "trees"]


class ClassifierTest:
    """Tells windows from the reference by a model; a new size of window costs `_DRAWS` times two fits."""

    def __init__(
        self, reference: Reference, learner: Learner = "trees", *, alpha: float = 0.01, seed: int = 0
    ) -> None:
        """Take the reference.

        Raises:
            ValueError: it has too few rows, or no features.
        """
        names = reference.features
        if len(reference.records) < 4 * _FEW_ROWS or not names:
            raise ValueError(
                f"the reference has {len(reference.records)} rows of {len(names)} features, "
                f"expected {4 * _FEW_ROWS} rows or more with features"
            )
        self._learner, self._alpha, self._seed = learner, alpha, seed
        self._encoder = Encoder(names, reference.records)
        self._rows = self._encoder.table(reference.records)
        self._nulls: dict[int, Floats] = {}

    def update(self, batch: Window) -> list[Finding]:
        """Return one finding; its value is the area under the curve: one half where nothing can be told."""
        if len(batch.records) < _FEW_ROWS:
            few = f"{len(batch.records)} rows, expected {_FEW_ROWS} or more"
            return [Finding(Kind.NO_EVIDENCE, "classifier", "rows", batch.start, batch.end, few)]
        area = self._area(self._encoder.table(batch.records), self._rows)
        size = min(twosample.rounded(len(batch.records)), len(self._rows) // 3)
        p = twosample.tail(area, self._null(size), len(self._rows) / size)
        moved = p <= self._alpha
        return [
            Finding(
                Kind.NOTICE if moved else Kind.QUIET,
                "classifier",
                "rows",
                batch.start,
                batch.end,
                f"a model tells the window from the reference with an AUC of {area:.2f}",
                statistic=area,
                p=p,
                value=area,
                n=len(batch.records),
            )
        ]

    def _null(self, size: int) -> Floats:
        if size not in self._nulls:
            generator = np.random.default_rng(self._seed)
            cuts = twosample.pieces(len(self._rows), size, _DRAWS, generator)
            chosen = cuts[:: max(1, len(cuts) // _DRAWS)][:_DRAWS]
            rest = [np.delete(self._rows, cut, axis=0) for cut in chosen]
            drawn = [self._area(self._rows[cut], other) for cut, other in zip(chosen, rest, strict=True)]
            self._nulls[size] = np.array(drawn)
        return self._nulls[size]

    def _area(self, window: Floats, usual: Floats) -> float:
        window = _thinned(window, _MOST_ROWS)
        usual = _thinned(usual, min(_MOST_ROWS, 2 * len(window)))
        said: list[float] = []
        limits = need("threadpoolctl", extra="evals").threadpool_limits
        for first in (True, False):
            learnt, asked = zip(*(_halves(rows, first=first) for rows in (window, usual)), strict=True)
            with limits(1, user_api="openmp"):  # few rows are slower on many threads
                model = self._made().fit(np.vstack(learnt), [1] * len(learnt[0]) + [0] * len(learnt[1]))
                scores = model.predict_proba(np.vstack(asked))[:, 1]
            said.append(_area(scores[: len(asked[0])], scores[len(asked[0]) :]))
        return float(np.mean(said))

    def _made(self) -> Any:
        if self._learner == "trees":
            return need("sklearn.ensemble", extra="evals").HistGradientBoostingClassifier(
                max_iter=20, max_leaf_nodes=8, early_stopping=False, random_state=self._seed
            )
        pipeline = need("sklearn.pipeline", extra="evals")
        impute = need("sklearn.impute", extra="evals").SimpleImputer(
            strategy="median", keep_empty_features=True
        )
        scale = need("sklearn.preprocessing", extra="evals").StandardScaler()
        return pipeline.make_pipeline(
            impute, scale, need("sklearn.linear_model", extra="evals").LogisticRegression()
        )


def _thinned(rows: Floats, most: int) -> Floats:
    chosen: Floats = rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)]
    return chosen


def _halves(rows: Floats, *, first: bool) -> tuple[Floats, Floats]:
    middle = len(rows) // 2
    return (rows[:middle], rows[middle:]) if first else (rows[middle:], rows[:middle])


def _area(positive: Floats, negative: Floats) -> float:
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / (2 * len(ordered)))
