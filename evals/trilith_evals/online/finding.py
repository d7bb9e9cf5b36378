"""What a monitor found in a window, in the same words for predictors, rag and language models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How much a finding matters."""

    QUIET = "quiet"
    """Looked at, and nothing to say."""
    NOTICE = "notice"
    """Something begins to move; nobody need be woken. While it lasts it is open, and no second notice."""
    ALARM = "alarm"
    """An incident has begun: performance was lost, or a condition of the user's holds."""
    OPEN = "open"
    """An incident, or a move, goes on; it is not a second alarm or notice."""
    CLOSED = "closed"
    """An incident, or a move, has ended."""
    NO_EVIDENCE = "no evidence"
    """Too little came to say anything."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at in one window. Holds no text of a caller."""

    kind: Kind
    source: str
    """What looked: feature, unseen, inputs, multivariate, classifier, prediction, text, performance,
    estimated, metric.
    """
    subject: str
    """What it looked at: a feature, a metric."""
    start: float
    end: float
    """The window (Unix seconds)."""
    message: str = ""
    statistic: float | None = None
    p: float | None = None
    """Adjusted for the number of features looked at; None for sequential tests."""
    evidence: float | None = None
    """Of sequential tests: the e-detector's value; an alarm is due at `1 / alpha`."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    """Of a figure: its 95 % interval."""
    distance: float | None = None
    """Of a number: how far it moved (Wasserstein's distance, in standard deviations of the reference)."""
    n: int = 0
    """Rows that it rests on."""
    assumption: str = ""
    """What must hold for it to be true, where that is more than the data say."""
    causes: tuple[Mapping[str, Any], ...] = field(default=())
    """Of an alarm: where the loss sits, largest share first."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; what is unknown is left out."""
        found = asdict(self) | {"kind": self.kind.value, "causes": [dict(cause) for cause in self.causes]}
        return {name: value for name, value in found.items() if value not in (None, "", [], ())}
