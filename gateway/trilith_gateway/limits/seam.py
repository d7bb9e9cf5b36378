"""What all limiters have in common: the rule, and what is asked of whoever keeps the numbers.

The rule for requests and tokens is the generic cell rate algorithm (GCRA, ITU-T I.371): one number per
account, the time at which everything taken so far is paid off. It may lie up to a minute ahead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from trilith_gateway.terms import Rates

BURST_S = 60.0
"""How much time can be saved up: a whole minute's requests or tokens may come at once."""
_TOLERANCE_S = 1e-6

What = Literal["requests", "tokens", "concurrency"]


@dataclass(slots=True)
class Allowance:
    """What a limit says about one request; as quick to make as can be, so it is not frozen."""

    allowed: bool
    limit: int
    """Requests or tokens per minute, or requests at once."""
    remaining: int
    """What could follow at once."""
    retry_after_s: float
    """Time until this would be allowed (seconds); 0 when it is now, infinite when it never will be."""
    reset_s: float
    """Time until the full burst is there again (seconds)."""
    account: str = ""
    what: What = "requests"


def pace(due: float, amount: int, rate: int, now: float, account: str, what: What) -> tuple[float, Allowance]:
    """Take `amount` at `rate` per minute where all taken before is paid off at `due`.

    A refusal takes nothing.

    Returns:
        The new `due`, and the allowance. Times are seconds on any one clock.
    """
    interval = BURST_S / rate
    arrival = now if due <= now else min(due, now + BURST_S)  # a clock begun anew must not lock anybody out
    wait = arrival + amount * interval - now - BURST_S
    if wait > _TOLERANCE_S:
        left = _whole(now + BURST_S - arrival, interval)
        never = float("inf") if amount > rate else wait
        return due, Allowance(False, rate, left, never, arrival - now, account, what)
    due = arrival + amount * interval
    left = int((now + BURST_S - due + _TOLERANCE_S) / interval)
    return due, Allowance(True, rate, left, 0.0, due - now, account, what)


def _whole(seconds: float, interval: float) -> int:
    return max(0, int((seconds + _TOLERANCE_S) / interval))


def crowded(rates: Rates) -> Allowance:
    """Return the refusal of an account that has as many requests under way as it may."""
    return Allowance(False, rates.max_concurrency or 0, 0, 1.0, 0.0, rates.account, "concurrency")


def tightest(allowances: Sequence[Allowance]) -> Allowance | None:
    """Return the one that people should be told of: a refusal (the longest), else where least remains."""
    if not allowances:
        return None
    return min(allowances, key=lambda found: (found.allowed, -found.retry_after_s, found.remaining))


Maybe = Allowance | None
"""None: no limit of the kind."""


class Limiter(Protocol):
    """Keeps the numbers. Whatever is taken is taken at every account or, where one refuses, at none.

    Methods return what they found, or what waits for it.
    """

    def request(self, rates: Sequence[Rates], now: float) -> Maybe | Awaitable[Maybe]:
        """Count one request."""
        ...

    def work(self, rates: Sequence[Rates], id: str, tokens: int, now: float) -> Maybe | Awaitable[Maybe]:
        """Take a place among the requests under way, and `tokens`.

        Args:
            rates: The accounts' limits.
            id: The request's, unique.
            tokens: The most that it may use.
            now: Seconds on the machine's monotonic clock.

        Returns:
            What remains of the tokens; or the refusal, of tokens or of the place.
        """
        ...

    def settle(self, rates: Sequence[Rates], id: str, taken: int, used: int, now: float) -> None:
        """Give the place back, and count `used` tokens instead of those `taken`. Does not wait nor fail."""
        ...

    async def renew(self) -> None:
        """Keep the places of requests under way; called every few seconds."""
        ...

    async def aclose(self) -> None:
        """Release what it holds."""
        ...
