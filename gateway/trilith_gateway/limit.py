"""Rate limits: the generic cell rate algorithm (GCRA, ITU-T I.371), one number per key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a limit says about one request."""

    allowed: bool
    limit: int
    """Requests per minute."""
    remaining: int
    """Requests that could follow at once."""
    retry_after_s: float
    """Time until the next request is allowed (seconds); 0 when it is now."""
    reset_s: float
    """Time until the full burst is there again (seconds)."""


class RateLimiter:
    """Allows `rate` requests per minute: all at once if need be, and no more over any longer time."""

    def __init__(self) -> None:
        self._arrival: dict[str, float] = {}

    def take(self, key: str, rate: int, now: float) -> Allowance:
        """Count one request of `key` against `rate` per minute at time `now` (seconds, monotonic).

        A refused request counts for nothing.
        """
        interval = 60.0 / rate
        arrival = max(self._arrival.get(key, now), now)
        wait = arrival + interval - now - 60.0
        if wait > 1e-9:
            return Allowance(False, rate, 0, wait, arrival - now)
        self._arrival[key] = arrival + interval
        used = self._arrival[key] - now
        return Allowance(True, rate, int((60.0 - used) / interval + 1e-9), 0.0, used)
