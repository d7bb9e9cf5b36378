"""Where a loss sits: which features, tenants, releases and topics account for a rise, each with its share.

The rise of a mean splits exactly over the values of a field: each value's part is its weight now times its
loss now, less weight then times loss then, both against the usual mean. Intervals come from blocks of
neighbouring rows; p-values are adjusted over all values of all fields (Benjamini and Hochberg).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trilith_evals.comparison import benjamini_hochberg
from trilith_evals.online.record import Floats, Record, is_number

_BLOCK = 16
"""Neighbouring rows count as one: they are alike."""
_FEW = 20
_MOST_VALUES = 20

Slice = Callable[[Record], str]


def slices(reference: Sequence[Record], topics: Callable[[Record], str] | None = None) -> dict[str, Slice]:
    """Return where causes are looked for: tenant, release, topic, and each feature in quarters."""
    found: dict[str, Slice] = {"tenant": lambda r: r.tenant, "release": lambda r: r.release}
    if topics is not None:
        found["topic"] = topics
    for name in sorted({name for record in reference for name in record.features}):
        column = [record.features.get(name) for record in reference]
        if is_number(column):
            edges = np.unique(np.quantile([v for v in column if v is not None], (0.25, 0.5, 0.75)))
            found[name] = _quarter(name, [float(edge) for edge in edges])
        else:
            found[name] = _category(name)
    return found


def causes(
    before: Sequence[tuple[Record, float]],
    now: Sequence[tuple[Record, float]],
    fields: Mapping[str, Slice],
    *,
    most: int = 5,
) -> tuple[dict[str, Any], ...]:
    """Return the slices that account for a rise of the loss, the largest share first.

    Args:
        before: Records of the reference with their losses.
        now: Those of the windows in question.
        fields: From `slices`.
        most: How many are returned.
    """
    if not before or not now:
        return ()
    usual = float(np.mean([loss for _, loss in before]))
    rise = float(np.mean([loss for _, loss in now])) - usual
    if rise <= 0:
        return ()
    rows = []
    for field, slice_of in fields.items():
        names = [slice_of(record) for record, _ in (*before, *now)]
        values = sorted(set(names), key=lambda value: (-names.count(value), value))[:_MOST_VALUES]
        if len(values) < 2 and field not in ("tenant", "release", "topic"):
            continue
        for value in values:
            old, new = _parts(before, slice_of, value, usual), _parts(now, slice_of, value, usual)
            inside = sum(1 for record, _ in now if slice_of(record) == value)
            if inside < _FEW or value == "":
                continue
            part, error = float(new.mean() - old.mean()), _error(old, new)
            rows.append((field, value, part, error, inside))
    if not rows:
        return ()
    ps = benjamini_hochberg([_one_sided(part, error) for _, _, part, error, _ in rows])
    found: list[dict[str, Any]] = [
        {
            "field": field,
            "value": value,
            "share_of_loss": round(part / rise, 4),
            "low": round((part - 1.96 * error) / rise, 4),
            "high": round((part + 1.96 * error) / rise, 4),
            "share_of_rows": round(inside / len(now), 4),
            "p": p,
        }
        for (field, value, part, error, inside), p in zip(rows, ps, strict=True)
        if part > 0
    ]
    # a slice that holds nine tenths of the rows holds nine tenths of any rise: what is beyond that counts
    return tuple(sorted(found, key=lambda row: row["share_of_rows"] - row["share_of_loss"])[:most])


def _parts(pairs: Sequence[tuple[Record, float]], slice_of: Slice, value: str, usual: float) -> Floats:
    return np.array([loss - usual if slice_of(record) == value else 0.0 for record, loss in pairs])


def _error(old: Floats, new: Floats) -> float:
    return math.sqrt(sum(_variance(parts) for parts in (old, new)))


def _variance(parts: Floats) -> float:
    count = len(parts) // _BLOCK
    if count < 4:
        return float(parts.var(ddof=1) / len(parts)) if len(parts) > 1 else 0.0
    means = parts[: count * _BLOCK].reshape(count, _BLOCK).mean(1)
    return float(means.var(ddof=1) / count)


def _one_sided(part: float, error: float) -> float:
    if error == 0:
        return 1.0 if part <= 0 else 0.0
    return 0.5 * math.erfc(part / error / math.sqrt(2))


def _category(name: str) -> Slice:
    return lambda record: str(record.features.get(name))


def _quarter(name: str, edges: Sequence[float]) -> Slice:
    bounds = [-math.inf, *edges, math.inf]

    def slice_of(record: Record) -> str:
        value = record.features.get(name)
        if not isinstance(value, int | float):
            return "missing"
        at = int(np.searchsorted(edges, value, side="left"))
        return f"{bounds[at]:.4g} to {bounds[at + 1]:.4g}"

    return slice_of


class Topics:
    """Topics of texts: groups of embeddings of the reference (k-means), called by number.

    With `words=True` a topic is called by words that set it apart (tf-idf), of which each stands in ten
    texts of three tenants or more and holds letters alone: so no name, number or address of one caller.
    """

    def __init__(
        self, reference: Sequence[Record], count: int = 8, *, words: bool = False, seed: int = 0
    ) -> None:
        """Group the reference's records that have embeddings."""
        from trilith.extras import need

        rows = [record for record in reference if record.embedding is not None]
        if len(rows) < 2 * count:
            raise ValueError(f"the reference has {len(rows)} embeddings, expected {2 * count} or more")
        library = need("sklearn.cluster", extra="evals")
        fitted = library.KMeans(count, n_init=3, random_state=seed).fit([r.embedding for r in rows])
        self._centres = np.asarray(fitted.cluster_centers_, float)
        self.names = [f"topic {number}" for number in range(1, count + 1)]
        if words:
            self._name(rows, [int(label) for label in fitted.labels_])

    def __call__(self, record: Record) -> str:
        """Return the nearest topic's name; empty for a record without embedding."""
        if record.embedding is None:
            return ""
        gaps = ((self._centres - np.asarray(record.embedding, float)) ** 2).sum(1)
        return self.names[int(gaps.argmin())]

    def _name(self, rows: Sequence[Record], groups: Sequence[int]) -> None:
        spoken = [{w for w in r.text.lower().split() if w.isalpha() and len(w) > 3} for r in rows]
        tenants: dict[str, set[str]] = {}
        counts: dict[str, int] = {}
        for record, found in zip(rows, spoken, strict=True):
            for word in found:
                tenants.setdefault(word, set()).add(record.tenant)
                counts[word] = counts.get(word, 0) + 1
        common = {word for word, n in counts.items() if n >= 10 and len(tenants[word]) >= 3}
        for group in range(len(self.names)):
            inside = [words & common for words, g in zip(spoken, groups, strict=True) if g == group]
            weight = {
                word: sum(word in words for words in inside) * math.log(len(rows) / counts[word])
                for word in set().union(*inside)
            }
            best = sorted(weight, key=lambda word: (-weight[word], word))[:3]
            if best:
                self.names[group] += f" ({', '.join(best)})"
