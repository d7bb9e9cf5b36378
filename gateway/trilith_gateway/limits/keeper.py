"""Holds requests to the limits of their key, team and org: at their start, before their work, at the end."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from trilith.errors import RateLimitError
from trilith_gateway.exchange import Exchange
from trilith_gateway.limits.seam import Allowance, Limiter, Maybe


class LimitKeeper:
    """Asks a limiter, and tells callers what it said. Only for keys that stand under limits."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def begin(self, exchange: Exchange) -> Awaitable[None] | None:
        """Count the request, before its body is read.

        Raises:
            RateLimitError: there were too many in the last minute.
        """
        found = self._limiter.request(exchange.caller.request_rates, time.monotonic())
        if found is None or isinstance(found, Allowance):
            self._counted(exchange, found)
            return None
        return self._begin_later(exchange, found)

    async def _begin_later(self, exchange: Exchange, asked: Awaitable[Maybe]) -> None:
        self._counted(exchange, await asked)

    def _counted(self, exchange: Exchange, found: Maybe) -> None:
        if found is not None:
            exchange.allowance = found
            if not found.allowed:
                raise _refused(found, 1)

    def work(self, exchange: Exchange, tokens: int) -> Awaitable[None] | None:
        """Take a place among the requests under way, and the most tokens that the request can use.

        Raises:
            RateLimitError: there is no place, or the last minute's tokens leave too few.
        """
        found = self._limiter.work(exchange.caller.work_rates, exchange.id, tokens, time.monotonic())
        if found is None or isinstance(found, Allowance):
            self._taken(exchange, found, tokens)
            return None
        return self._work_later(exchange, found, tokens)

    async def _work_later(self, exchange: Exchange, asked: Awaitable[Maybe], tokens: int) -> None:
        self._taken(exchange, await asked, tokens)

    def _taken(self, exchange: Exchange, found: Maybe, tokens: int) -> None:
        if found is not None and found.what == "tokens":
            exchange.token_allowance = found
        if found is not None and not found.allowed:
            raise _refused(found, tokens)
        exchange.tokens_taken = tokens

    def end(self, exchange: Exchange, used: int) -> None:
        """Give the place back, and count the tokens that were used instead of those that might have been."""
        taken, exchange.tokens_taken = exchange.tokens_taken, None
        if taken is not None:
            self._limiter.settle(exchange.caller.work_rates, exchange.id, taken, used, time.monotonic())


def _refused(found: Allowance, amount: int) -> RateLimitError:
    level = found.account.partition(":")[0]
    wait = found.retry_after_s
    never = wait == float("inf")
    match found.what:
        case "requests":
            said = f"This {level} may send {found.limit:,} requests per minute. Try again in {wait:.1f} s."
        case "concurrency":
            said = f"This {level} may have {found.limit:,} requests under way. Try again when one has ended."
        case _ if never:
            said = (
                f"This request may use up to {amount:,} tokens, and this {level} {found.limit:,} per minute. "
                "Lower max_tokens or send less."
            )
        case _:
            said = (
                f"This request may use up to {amount:,} tokens, and this {level} {found.limit:,} per minute, "
                f"of which {found.remaining:,} are left. Try again in {wait:.1f} s."
            )
    error = RateLimitError(
        said,
        status_code=429,
        code="rate_limit_exceeded",
        type="rate_limit_exceeded",
        retry_after_s=None if never else wait,
    )
    error.retryable = not never
    return error
