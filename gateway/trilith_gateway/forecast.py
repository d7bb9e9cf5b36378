"""What a budget's window will have cost at its end: a straight line, as wide as the days' spread makes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

_FEWEST = 3
"""Whole days (hours, for a window of a day) from which on a spread means something."""
_Z = 1.96
"""Standard deviations on either side that hold 95 % of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """The spending of one window, in pico-USD."""

    spent: int
    expected: int | None
    """At the window's end, if it goes on as it went; None when nothing of the window has passed."""
    low: int | None
    """Between `low` and `high` it will be with 95 %; None when there is too little data to say."""
    high: int | None
    parts: int
    """Whole days or hours that the interval rests on."""

    def verdict(self, budget: int) -> str:
        """Say in words what that means for a budget (pico-USD)."""
        if self.spent >= budget:
            return "used up"
        if self.low is None or self.high is None:
            return f"too little data: {self.parts} of the {_FEWEST} days or hours that an interval needs"
        if self.high <= budget:
            return "will do"
        return "will not do" if self.low > budget else "may not do"


def forecast(parts: Sequence[int], running: int, elapsed: float, left: float) -> Forecast:
    """Forecast a window's spending.

    Args:
        parts: What each whole day (or hour) so far cost, those that cost nothing included.
        running: What the one that is not over has cost.
        elapsed: How many days (or hours) of the window are over, the running one's part included.
        left: How many are left.
    """
    spent = sum(parts) + running
    expected = None if elapsed <= 0 else spent + round(spent * left / elapsed)
    if expected is None or len(parts) < _FEWEST:
        return Forecast(spent, expected, None, None, len(parts))
    # The days that are left vary, and so does the mean that we take theirs to be.
    width = round(_Z * stdev(map(float, parts)) * math.sqrt(left + left * left / len(parts)))
    return Forecast(spent, expected, max(spent, expected - width), expected + width, len(parts))
