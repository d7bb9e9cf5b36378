"""One replica as the router sees it: what it is doing, how fast it answers, and whether it may be asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from trilith.seams import Upstream

_MEMORY_S = 10.0
"""How long a latency is remembered: after so many seconds it weighs 1/e."""


@dataclass(slots=True, eq=False)
class Breaker:
    """Stops asking a replica that fails, and asks with one request now and then whether it is well again."""

    failures_to_open: int = 5
    pause_s: float = 1.0
    most_pause_s: float = 30.0
    failures: int = 0
    """In a row."""
    open_until: float = 0.0
    probing: bool = False
    _pause_s: float = 0.0

    def allows(self, now: float) -> bool:
        """Say whether a request may be sent; `now` in seconds, monotonic."""
        if self.failures < self.failures_to_open and now >= self.open_until:
            return True
        return now >= self.open_until and not self.probing

    def begin(self, now: float) -> bool:
        """A request is sent; returns whether it is the probe: no other is sent until that has ended."""
        probe = self.failures >= self.failures_to_open and not self.probing
        self.probing = self.probing or probe
        return probe

    def succeed(self) -> None:
        """The replica answered."""
        self.failures = 0
        self.probing = False
        self._pause_s = 0.0

    def fail(self, now: float) -> None:
        """The replica did not answer, or said that it cannot."""
        self.failures += 1
        late = not self.probing and now < self.open_until  # one of many that were under way when it opened
        self.probing = False
        if self.failures >= self.failures_to_open and not late:
            self._pause_s = min(max(self.pause_s, self._pause_s * 2), self.most_pause_s)
            self.open_until = now + self._pause_s

    def rest(self, until: float) -> None:
        """The replica asked to be left alone until then (429 or 503 with Retry-After)."""
        self.open_until = max(self.open_until, until)

    def abandon(self, *, probe: bool = True) -> None:
        """A request was given up before its outcome was known."""
        if probe:
            self.probing = False


@dataclass(slots=True, eq=False)
class Window:
    """What came back from a replica since the last comparison."""

    good: int = 0
    bad: int = 0
    seconds: float = 0.0
    """Sum of the good answers' times to head."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """One replica."""

    name: str
    upstream: Upstream
    weight: float = 1.0
    breaker: Breaker = field(default_factory=Breaker)
    cost: float = 1.0
    """What a request costs here, compared with the others."""
    tags: frozenset[str] = frozenset()
    outstanding: int = 0
    """Requests whose answers are not complete."""
    latency_s: float = 0.0
    """Time to an answer's head, decaying with time; a rise counts at once, a fall slowly (peak sensitive)."""
    heard_at: float = 0.0
    pressure: float = 1.0
    """1 when the engine has room; more when requests wait there or its key-value cache is nearly full."""
    credit: float = 0.0
    """For smooth weighted round robin."""
    healthy: bool = True
    """As health checks say; true where there are none."""
    window: Window = field(default_factory=Window)
    ejected_until: float = 0.0
    ejections: int = 0
    """How often in a row it was ejected."""

    def well(self, now: float) -> bool:
        """Say whether nothing speaks against it but perhaps its breaker."""
        return self.healthy and now >= self.ejected_until

    def away(self, now: float) -> str:
        """Say why it may not, or had better not, be asked; empty when nothing speaks against it."""
        breaker = self.breaker
        if not breaker.allows(now):
            if breaker.failures < breaker.failures_to_open:
                return "asked to be left alone"
            return "circuit open" if now < breaker.open_until else "circuit open, being tried"
        if now < self.ejected_until:
            return "ejected"
        return "" if self.healthy else "unwell"

    def observe(self, seconds: float, now: float) -> None:
        """Take one time to head."""
        if seconds >= self.latency_s or not self.heard_at:
            self.latency_s = seconds
        else:
            keep = math.exp(-max(0.0, now - self.heard_at) / _MEMORY_S)
            self.latency_s = self.latency_s * keep + seconds * (1 - keep)
        self.heard_at = now
        self.window.good += 1
        self.window.seconds += seconds

    def forget(self, now: float) -> None:
        """Let an idle replica's latency fade, else one slow answer would keep all further requests away."""
        if not self.outstanding and self.heard_at:
            self.latency_s *= math.exp(-max(0.0, now - self.heard_at) / _MEMORY_S)
            self.heard_at = now

    def wait_s(self) -> float:
        """Return how long the head of an answer is expected to take (seconds); 0 while nothing is known."""
        return self.latency_s * self.pressure

    def load(self) -> float:
        """Return how long one more request would wait, up to a common factor."""
        return (self.outstanding + 1) * max(self.latency_s, 1e-4) * self.pressure / self.weight
