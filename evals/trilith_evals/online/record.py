"""What production says: a record per answer, windows of them, and the reference they are held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trilith.types import Json
from trilith_evals.online.finding import Finding

Floats: TypeAlias = NDArray[np.float64]
DAY_S = 86_400.0
WEIGHT = "sampling_weight"
"""Among a record's values: for how many answers its scores speak."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was asked and answered, for scorers. It is dropped as soon as it is scored, and never kept."""

    input: Json
    """As a case's: a question, a conversation, or a predictor's features."""
    answer: str = ""
    expected: Json = None
    """The right answer, where the log knows it."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """More for the scorers, such as passages."""


@dataclass(slots=True)
class Record:
    """One answer that was given in production, of a predictor or of a language model."""

    id: str
    """Of the request or prediction; labels and scores are joined by it."""
    at: float
    """When it was given (Unix seconds)."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Inputs by name; numbers and texts."""
    score: float | None = None
    """A classifier's probability of class 1, or a regressor's prediction."""
    values: Mapping[str, float] = field(default_factory=dict)
    """What was measured of it: latency_s, cost_pico_usd, refused, the scores of scorers."""
    embedding: Sequence[float] | None = None
    """Of its input text."""
    tenant: str = ""
    release: str = ""
    label: float | None = None
    """The truth, once it is known."""
    text: str = ""
    """The input's text, only where the user has it kept; it never leaves in a finding."""
    exchange: Exchange | None = None
    """Question and answer, until they are scored."""


@dataclass(frozen=True, slots=True)
class Window:
    """The records of one stretch of time."""

    start: float
    end: float
    """Unix seconds; not in the window."""
    records: tuple[Record, ...]

    def numbers(self, name: str) -> Floats:
        """Return one of `values` where it is given."""
        return np.array([r.values[name] for r in self.records if name in r.values], float)

    def column(self, name: str) -> list[Any]:
        """Return a feature; None where it is missing."""
        return [record.features.get(name) for record in self.records]


class Detector(Protocol):
    """Looks at one window after the other."""

    def update(self, batch: Window) -> list[Finding]:
        """Take the next window, and say what it shows. Windows come in the order of time, each once."""
        ...


@dataclass(frozen=True, slots=True)
class Reference:
    """The time that counts as normal; its records are in the order of time."""

    records: tuple[Record, ...]

    @property
    def features(self) -> list[str]:
        """Names of all features, sorted."""
        return sorted({name for record in self.records for name in record.features})

    @property
    def embeddings(self) -> Floats | None:
        """One row per record that has one; None where fewer than two have."""
        rows = [record.embedding for record in self.records if record.embedding is not None]
        return np.array(rows, float) if len(rows) > 1 else None

    def blocks(self, width_s: float) -> list[tuple[Record, ...]]:
        """Return its windows of so many seconds; the first and last may be partial and are left out."""
        found = [window.records for window in windows(self.records, width_s)]
        return found[1:-1] if len(found) > 4 else found


def windows(records: Iterable[Record], width_s: float) -> list[Window]:
    """Cut records into windows that begin at multiples of their width since 1970; empty ones are left out."""
    groups: dict[int, list[Record]] = {}
    for record in records:
        groups.setdefault(math.floor(record.at / width_s), []).append(record)
    return [
        Window(number * width_s, (number + 1) * width_s, tuple(sorted(found, key=lambda r: (r.at, r.id))))
        for number, found in sorted(groups.items())
    ]


def is_number(values: Iterable[Any]) -> bool:
    """Say whether a feature is a number: everything that is not missing is one, and something is."""
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present)


def as_numbers(values: Iterable[Any]) -> Floats:
    """Return numbers, with the missing ones below all others: a change of what is missing is a change too."""
    return np.array(
        [float(v) if isinstance(v, int | float) and not math.isnan(v) else -math.inf for v in values], float
    )
