"""Finds the replica that does much worse than the others, and leaves it alone for a while.

A breaker sees failures in a row; this sees what a breaker cannot: one answer in three that fails, or a
replica that always answers, five times later than its equals. It compares: when all are slow, it is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from trilith_gateway.routing.endpoint import Endpoint, Window


@dataclass(frozen=True, slots=True)
class Ejection:
    """When a replica is ejected, and for how long."""

    interval_s: float = 10.0
    least_requests: int = 20
    success_gap: float = 0.3
    latency_factor: float = 4.0
    pause_s: float = 30.0
    most_share: float = 0.5


class Outliers:
    """Compares replicas whenever an interval is over."""

    def __init__(self, rules: Ejection) -> None:
        self._rules = rules
        self._next: float | None = None

    def look(self, endpoints: Sequence[Endpoint], now: float) -> list[Endpoint]:
        """Eject those that stand out, worst first; returns them. `now` in seconds, monotonic."""
        if self._next is None:
            self._next = now + self._rules.interval_s
        if now < self._next:
            return []
        self._next = now + self._rules.interval_s
        judged = [
            e
            for e in endpoints
            if now >= e.ejected_until and e.window.good + e.window.bad >= self._rules.least_requests
        ]
        out = int(len(endpoints) * self._rules.most_share) - sum(now < e.ejected_until for e in endpoints)
        worst = sorted(judged, key=lambda e: (_success(e.window), -_mean_s(e.window)))
        ejected = [e for e in worst if self._stands_out(e, [o for o in judged if o is not e])][: max(0, out)]
        for endpoint in endpoints:
            if endpoint in ejected:
                endpoint.ejections += 1
                endpoint.ejected_until = now + self._rules.pause_s * endpoint.ejections
            elif endpoint in judged:
                endpoint.ejections = 0
            endpoint.window = Window()
        return ejected

    def _stands_out(self, endpoint: Endpoint, others: Sequence[Endpoint]) -> bool:
        if not others:
            return False
        good = sum(other.window.good for other in others)
        share = good / (good + sum(other.window.bad for other in others))
        if _success(endpoint.window) <= share - self._rules.success_gap:
            return True
        times = [_mean_s(other.window) for other in others if other.window.good]
        if not times or not endpoint.window.good:
            return False
        return _mean_s(endpoint.window) > median(times) * self._rules.latency_factor


def _success(window: Window) -> float:
    return window.good / (window.good + window.bad)


def _mean_s(window: Window) -> float:
    return window.seconds / window.good if window.good else 0.0
