"""One watched mean: its level, its evidence, and whether an incident is open. An incident is one alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trilith_evals.online.finding import Finding, Kind
from trilith_evals.online.record import Floats
from trilith_evals.online.sequential import EDetector, Level, confidence_sequence

_QUIET_WINDOWS = 3
"""An incident ends when the mean of so many windows is back at what is normal."""


@dataclass(slots=True)
class Watch:
    """Takes the losses of one window after the other; larger is worse."""

    source: str
    subject: str
    detector: EDetector
    usual_rows: float
    unit: Floats
    """The reference's values, by whose extent losses are scaled."""
    open_since: float | None = None
    recent: list[float] = field(default_factory=list)
    """Means since the last change of state."""
    assumption: str = ""

    @classmethod
    def over(
        cls,
        source: str,
        subject: str,
        blocks: Sequence[Floats],
        *,
        alpha: float,
        tolerance: float = 0.0,
        assumption: str = "",
    ) -> Watch:
        """Make it from the reference's windows.

        Raises:
            ValueError: fewer than four of them have values.
        """
        full = [block for block in blocks if len(block)]
        unit = np.concatenate(full) if full else np.array([1.0])
        level = Level.of([float(np.minimum(block, _top(unit)).mean()) for block in full])
        rows = float(np.mean([len(block) for block in full]))
        return cls(source, subject, EDetector(level, alpha, tolerance), rows, unit, assumption=assumption)

    def update(self, losses: Floats, start: float, end: float, *, shown: float | None = None) -> Finding:
        """Take a window; say what the incident's state is."""
        if not len(losses):
            return Finding(Kind.NO_EVIDENCE, self.source, self.subject, start, end, "no values came")
        mean = float(np.minimum(losses, _top(self.unit)).mean())
        self.recent.append(mean)
        kind = self._state(mean, len(losses), start)
        top = _top(self.unit)
        low, high = confidence_sequence([min(1.0, max(0.0, m / top)) for m in self.recent[-365:]])
        usual = self.detector.level.mean
        value = float(losses.mean()) if shown is None else shown
        finding = Finding(
            kind,
            self.source,
            self.subject,
            start,
            end,
            f"{self.subject} is {value:.4g}, usual {usual:.4g}, worse above {self.detector.bound:.4g}",
            evidence=self.detector.evidence,
            value=value,
            low=low * top,
            high=high * top,
            n=len(losses),
            assumption=self.assumption,
        )
        if kind in (Kind.ALARM, Kind.CLOSED):
            self.recent = []
            self.detector.reset()
        return finding

    def _state(self, mean: float, rows: int, start: float) -> Kind:
        if self.open_since is None:
            self.detector.update(mean, rows, int(self.usual_rows))
            if not self.detector.due:
                return Kind.QUIET
            self.open_since = start
            return Kind.ALARM
        last = self.recent[-_QUIET_WINDOWS:]
        if len(last) == _QUIET_WINDOWS and float(np.mean(last)) <= self.detector.bound:
            self.open_since = None
            return Kind.CLOSED
        return Kind.OPEN

    def state(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {"values": self.detector.values, "open_since": self.open_since, "recent": self.recent[-365:]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.detector.values = [float(value) for value in state["values"]]
        self.open_since, self.recent = state["open_since"], list(state["recent"])


def _top(reference: Floats) -> float:
    return float(np.quantile(reference, 0.995)) or 1.0


def losses(values: Floats, worse: str, reference: Floats) -> Floats:
    """Return a metric's values so that larger is worse, turned round the reference's largest one."""
    if worse == "higher":
        return values
    return float(reference.max()) - values
