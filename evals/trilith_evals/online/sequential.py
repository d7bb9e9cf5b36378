"""Always-valid tests on a stream of windows: they may be looked at after every window, for ever.

`EDetector` watches for a rise. Each window's mean is a bet against "no worse than the reference, plus what is
tolerated" (a test martingale for bounded means: Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 2024), and of all times at which the rise may have begun the best one
counts (Shin, Ramdas, Rinaldo, "E-detectors", 2022; the CUSUM form, which is below the Shiryaev-Roberts
form and so keeps its bound). Then the mean time to a false alarm is at least `1 / alpha` windows, with no
further assumption on how windows depend on each other than that each one's expectation, given the past, is
not above the level. That is what a budget of alarms is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_BEST, _WORST = 2.0, 4.0
"""A window counts as at most so many of the reference's standard deviations better or worse than usual. The
bound below is what allows large bets; the one above keeps a single window from being an alarm."""
_CUT = 0.0085
"""What the bound below adds to the mean of normal windows (standard deviations); it is taken off."""
_BETS = (0.12, 0.24, 0.48, 0.95)
"""Shares of the largest bet, mixed evenly: small ones for slow rises, large ones for steep ones."""
_CAUTION = 1.645
"""The reference's mean is only known to within its standard error: 95 %, one-sided."""


@dataclass(slots=True)
class Level:
    """What is normal for a window's mean, from the windows of the reference."""

    mean: float
    spread: float
    """Standard deviation of windows; part of it is the sampling of rows within each."""
    error: float
    """Standard error of the mean."""
    windows: int

    @classmethod
    def of(cls, means: Sequence[float]) -> Level:
        """Take the reference's window means.

        Raises:
            ValueError: there are fewer than four of them.
        """
        if len(means) < 4:
            raise ValueError(f"the reference has {len(means)} windows with scores, expected 4 or more")
        values = np.asarray(means, float)
        spread = float(values.std(ddof=1)) or 1e-9
        # windows next to each other are alike: the error counts so many of them as are independent
        centred = values - values.mean()
        alike = float((centred[1:] * centred[:-1]).sum() / (centred**2).sum()) if centred.any() else 0.0
        alike = min(0.9, max(0.0, alike))
        error = spread * math.sqrt((1 + alike) / (1 - alike) / len(values))
        return cls(float(values.mean()), spread, error, len(values))


@dataclass(slots=True)
class EDetector:
    """Watches for a rise of window means above a level; larger is worse."""

    level: Level
    alpha: float
    """One false alarm in `1 / alpha` windows at most, in the mean."""
    tolerance: float = 0.0
    """A rise that is no harm, in the metric's own unit."""
    values: list[float] = field(default_factory=lambda: [1.0] * len(_BETS))
    """The state: the best start of each bet."""

    @property
    def evidence(self) -> float:
        """The e-detector's value; an alarm is due at `1 / alpha`."""
        return math.fsum(self.values) / len(self.values)

    @property
    def due(self) -> bool:
        """Whether there is enough evidence for an alarm."""
        return self.evidence >= 1 / self.alpha

    @property
    def bound(self) -> float:
        """The level above which a window's expectation counts as worse."""
        return self.level.mean + _CAUTION * self.level.error + self.tolerance

    def update(self, mean: float, rows: int = 0, usual_rows: int = 0) -> float:
        """Take the next window's mean; return the evidence.

        Args:
            mean: Of the window's losses.
            rows: How many rows it rests on.
            usual_rows: How many the reference's windows had; a smaller window is noisier and counts less.
        """
        scale = math.sqrt(max(1.0, usual_rows / rows)) if rows and usual_rows else 1.0
        step = (mean - self.bound) / (self.level.spread * scale)
        step = max(-_BEST, min(_WORST, step)) - _CUT
        for at, share in enumerate(_BETS):
            factor = 1 + share / (_BEST + _CUT) * step  # never below 0
            self.values[at] = max(self.values[at], 1.0) * factor
        return self.evidence

    def reset(self) -> None:
        """Forget all evidence."""
        self.values = [1.0] * len(_BETS)

    def state(self) -> dict[str, Any]:
        """Return what a restart needs."""
        return {"values": self.values}


def confidence_sequence(
    values: Sequence[float], alpha: float = 0.05, *, grid: int = 200
) -> tuple[float, float]:
    """Return an interval for the mean of values from 0 to 1 that holds at all times together.

    The hedged capital process with predictable plug-in bets (Waudby-Smith and Ramdas 2024, section 4.3).
    It takes the expectation to be the same throughout; cut the values where it may have changed.
    """
    means = np.linspace(0.5 / grid, 1 - 0.5 / grid, grid)
    up, down = np.zeros(grid), np.zeros(grid)
    inside = np.ones(grid, bool)
    centre, variance = 0.5, 0.25
    total, squares = 0.5, 0.25
    for t, value in enumerate(values, 1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(t + 1)))
        with np.errstate(divide="ignore"):
            up += np.log1p(np.minimum(bet, 0.5 / means) * (value - means))
            down += np.log1p(-np.minimum(bet, 0.5 / (1 - means)) * (value - means))
        inside &= np.maximum(up, down) + math.log(0.5) < math.log(1 / alpha)
        total += value
        centre = total / (t + 1)
        squares += (value - centre) ** 2
        variance = squares / (t + 1)
    held = means[inside]
    if not len(held):
        return 0.0, 1.0  # the expectation has changed on the way: no single mean fits
    return max(0.0, float(held[0]) - 0.5 / grid), min(1.0, float(held[-1]) + 0.5 / grid)
