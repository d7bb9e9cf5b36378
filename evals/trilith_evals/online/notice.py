"""Makes one notice of a move that lasts: said once when it begins, and once when it is over.

A feature near the border moves in one window, not in the next, and again in the third. So a move is over
only after three windows in a row in which nothing was found; until then it is open, and no second notice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from trilith_evals.online.finding import Finding, Kind

QUIET_WINDOWS = 3
"""A move is over when it was not found in so many windows in a row."""


class Episodes:
    """Knows which moves are open. Alarms and windows without evidence pass as they are."""

    def __init__(self) -> None:
        """Begin with none."""
        self._quiet: dict[str, int] = {}
        """Open moves, with the windows in a row in which each was not found."""

    def of(self, findings: Iterable[Finding]) -> list[Finding]:
        """Take the findings of one window, one a subject; return them with their kind in time."""
        return [self._one(finding) for finding in findings]

    def _one(self, finding: Finding) -> Finding:
        subject = f"{finding.source}/{finding.subject}"
        if finding.kind is Kind.NOTICE:
            known = subject in self._quiet
            self._quiet[subject] = 0
            return replace(finding, kind=Kind.OPEN) if known else finding
        if finding.kind is not Kind.QUIET or subject not in self._quiet:
            return finding
        self._quiet[subject] += 1
        if self._quiet[subject] < QUIET_WINDOWS:
            return replace(finding, kind=Kind.OPEN)
        del self._quiet[subject]
        return replace(finding, kind=Kind.CLOSED)

    def state(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return dict(self._quiet)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._quiet = {str(subject): int(count) for subject, count in state.items()}
