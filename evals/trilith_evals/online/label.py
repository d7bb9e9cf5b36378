"""Joins labels that come late, or never, to the records that they belong to. It never looks ahead."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

from trilith_evals.online.record import Record


@dataclass(frozen=True, slots=True)
class LabelState:
    """How far the labels have come."""

    labelled: int
    waiting: int
    never: int
    """Given up: older than the longest wait."""
    orphans: int
    """Labels for records that nobody knows."""
    typical_delay_s: float | None
    """Median delay of those that came (seconds)."""

    @property
    def never_share(self) -> float:
        """Share that never came, of the records that are old enough to say."""
        known = self.labelled + self.never
        return self.never / known if known else 0.0


class LabelJoiner:
    """Keeps records until their label is there, or given up."""

    def __init__(self, longest_wait_s: float) -> None:
        """Take the age at which a record without a label is given up (seconds)."""
        self._wait = longest_wait_s
        self._records: dict[str, Record] = {}
        self._early: dict[str, tuple[float, float]] = {}
        self._future: list[tuple[float, str, float]] = []
        self._delays: list[float] = []
        self._never = self._orphans = 0
        self._now = -math.inf

    def observe(self, record: Record) -> None:
        """Take a record; one that brings its label is labelled at once."""
        self._records[record.id] = record
        if record.label is not None:
            self._delays.append(0.0)
        elif record.id in self._early:
            self._join(record.id, *self._early.pop(record.id))

    def label(self, id: str, value: float, at: float) -> None:
        """Take a label that becomes known at a time; it is not used before that."""
        heapq.heappush(self._future, (at, id, value))

    def advance(self, now: float) -> list[Record]:
        """Move the clock; return the records that got their label since the last time."""
        self._now = max(self._now, now)
        joined = []
        while self._future and self._future[0][0] <= self._now:
            at, id, value = heapq.heappop(self._future)
            if id in self._records:
                if (record := self._join(id, at, value)) is not None:
                    joined.append(record)
            else:
                self._early[id] = (at, value)
        return joined

    def pending(self) -> list[tuple[str, float, float]]:
        """Return labels (id, value, time) that no record has yet, for a restart."""
        early = [(id, value, at) for id, (at, value) in self._early.items()]
        return early + [(id, value, at) for at, id, value in self._future]

    def settle(self, before: float) -> None:
        """Let go of the records before a time: those without a label are given up."""
        for id in [id for id, record in self._records.items() if record.at < before]:
            if self._records.pop(id).label is None:
                self._never += 1
        for id in [id for id, (at, _) in self._early.items() if at < before - self._wait]:
            del self._early[id]
            self._orphans += 1

    def state(self) -> LabelState:
        """Count."""
        waiting = sum(1 for r in self._records.values() if r.label is None and self._now - r.at < self._wait)
        never = sum(1 for r in self._records.values() if r.label is None) - waiting + self._never
        delays = sorted(self._delays)
        middle = delays[len(delays) // 2] if delays else None
        return LabelState(len(delays), waiting, never, self._orphans, middle)

    def _join(self, id: str, at: float, value: float) -> Record | None:
        record = self._records[id]
        if record.label is not None:
            return None  # the first label counts; a correction must not move a closed window
        record.label = value
        self._delays.append(max(0.0, at - record.at))
        return record
