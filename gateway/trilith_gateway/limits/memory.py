"""Limits of a gateway that is one process."""

from __future__ import annotations

from collections.abc import Sequence

from trilith_gateway.limits.seam import BURST_S, Allowance, Maybe, crowded, pace, tightest
from trilith_gateway.terms import Rates


class RateLimiter:
    """Three numbers for each account."""

    def __init__(self) -> None:
        self._requests: dict[str, float] = {}
        self._tokens: dict[str, float] = {}
        self._open: dict[str, int] = {}

    def request(self, rates: Sequence[Rates], now: float) -> Maybe:
        """Count one request at every account, or at none."""
        if len(rates) == 1:  # as nearly always
            return self._request(rates[0], now)
        found: list[Allowance] = []
        for limit in rates:
            if limit.requests_per_minute is not None:
                before = self._requests.get(limit.account, now)
                found.append(pace(before, 1, limit.requests_per_minute, now, limit.account, "requests")[1])
        if all(allowance.allowed for allowance in found):
            for limit in rates:
                self._request(limit, now)
        return tightest(found)

    def _request(self, limit: Rates, now: float) -> Maybe:
        if (rate := limit.requests_per_minute) is None:
            return None
        name = limit.account
        self._requests[name], found = pace(self._requests.get(name, now), 1, rate, now, name, "requests")
        return found

    def work(self, rates: Sequence[Rates], id: str, tokens: int, now: float) -> Maybe:
        """Take a place and `tokens` at every account, or nothing at any."""
        due: dict[str, float] = {}
        found: list[Allowance] = []
        for limit in rates:
            name = limit.account
            if limit.max_concurrency is not None and self._open.get(name, 0) >= limit.max_concurrency:
                found.append(crowded(limit))
            if limit.tokens_per_minute is not None:
                before = self._tokens.get(name, now)
                due[name], allowance = pace(before, tokens, limit.tokens_per_minute, now, name, "tokens")
                found.append(allowance)
        if all(allowance.allowed for allowance in found):
            self._tokens |= due
            for limit in rates:
                if limit.max_concurrency is not None:
                    self._open[limit.account] = self._open.get(limit.account, 0) + 1
        return tightest(found)

    def settle(self, rates: Sequence[Rates], id: str, taken: int, used: int, now: float) -> None:
        """Give the place back, and count `used` tokens instead of those `taken`."""
        for limit in rates:
            name = limit.account
            if limit.max_concurrency is not None:
                self._open[name] -= 1
            if limit.tokens_per_minute is not None:
                due = max(self._tokens.get(name, now), now)
                self._tokens[name] = due + (used - taken) * BURST_S / limit.tokens_per_minute

    async def renew(self) -> None:
        """Nothing to do: places end with the process."""

    async def aclose(self) -> None:
        """Nothing to release."""
