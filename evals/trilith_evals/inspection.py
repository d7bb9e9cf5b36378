"""Looks at a dataset before anything is run on it: faults, near-duplicates, leaks between parts, balance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from trilith_evals import likeness
from trilith_evals.dataset import Columns, Dataset, load
from trilith_evals.sidecar import read_sidecar

_MOST_LABELS = 20
_MOST_PAIRS = 1000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cases whose inputs are nearly the same."""

    one: str
    """Id of a case."""
    other: str
    share: float
    """What they have in common, from 0 to 1."""
    parts: tuple[str, str] = ("", "")
    """The parts that they are in."""
    clustered: bool = False
    """Whether they share a cluster, which says already that they are not independent."""

    @property
    def leaks(self) -> bool:
        """Whether they stand in two parts: what was tuned on one knows the other."""
        return self.parts[0] != self.parts[1]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a dataset is like."""

    data: Dataset
    parts: dict[str, int] = field(default_factory=dict)
    """Cases by part, where there are parts."""
    clusters: int = 0
    pairs: tuple[Pair, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    """How often each right answer stands, where there are few of them."""
    without_expected: int = 0

    @property
    def leaks(self) -> tuple[Pair, ...]:
        """The near-duplicates between parts."""
        return tuple(pair for pair in self.pairs if pair.leaks)


def inspect(path: Path, columns: Columns | None = None, *, alike: float = likeness.ALIKE) -> Inspection:
    """Read a dataset whole, and look at it.

    Raises:
        DataError: it is wrong.
        SettingsError: what stands beside it is wrong.
    """
    data = load(path, columns)
    sidecar = read_sidecar(path)
    part_of: dict[str, str] = {}
    if sidecar and sidecar.splits:
        if sidecar.splits.column:
            part_of = {c.id: str(c.fields.get(sidecar.splits.column)) for c in data.cases}
        for name in sidecar.splits.shares:
            found = sidecar.splits.part(name)
            part_of |= {c.id: name for c in load(path, columns, split=found, may_be_empty=True).cases}
    return Inspection(
        data=data,
        parts=dict(Counter(part_of.get(case.id, "(none)") for case in data.cases)) if part_of else {},
        clusters=len({case.cluster for case in data.cases if case.cluster is not None}),
        pairs=tuple(_pairs(data, part_of, alike)),
        labels=_labels(data),
        without_expected=sum(case.expected is None for case in data.cases),
    )


def _pairs(data: Dataset, part_of: dict[str, str], alike: float) -> list[Pair]:
    found: list[Pair] = []
    for one, other, share in likeness.pairs([likeness.text_of(c.input) for c in data.cases], alike=alike):
        a, b = data.cases[one], data.cases[other]
        parts = (part_of.get(a.id, ""), part_of.get(b.id, ""))
        clustered = a.cluster is not None and a.cluster == b.cluster
        found.append(Pair(a.id, b.id, share, parts, clustered))
        if len(found) >= _MOST_PAIRS:
            break
    return found


def _labels(data: Dataset) -> dict[str, int]:
    counts = Counter(str(case.expected) for case in data.cases if isinstance(case.expected, str | int | bool))
    few = 1 < len(counts) <= _MOST_LABELS and sum(counts.values()) >= 2 * len(counts)
    return dict(counts.most_common()) if few else {}
