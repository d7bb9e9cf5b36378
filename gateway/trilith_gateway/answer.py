"""The gateway's own words to a caller: errors in the caller's protocol, and response headers."""

from __future__ import annotations

import time

from trilith.errors import APIError, APIStatusError, APITimeoutError
from trilith.money import format_usd
from trilith_gateway import charge, fault, sse
from trilith_gateway.api import Api
from trilith_gateway.exchange import Answer, Exchange
from trilith_gateway.limits.seam import Allowance

_RETRIED = (409, 429)
"""Statuses below 500 that OpenAI's client tries again."""


def error(exchange: Exchange, error: APIError) -> Answer:
    """Return the answer that tells a caller of an error."""
    headers = {"content-type": "application/json", **advice(error)}
    return Answer(fault.status(error), headers, sse.dump(exchange.operation.error(error)))


def advice(error: APIError) -> dict[str, str]:
    """Return the headers that say whether and when to try again."""
    headers: dict[str, str] = {}
    if isinstance(error, APIStatusError) and error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    status = fault.status(error)
    if (status >= 500 or status in _RETRIED) and (not error.retryable or isinstance(error, APITimeoutError)):
        headers["x-should-retry"] = "false"  # clients would: by the status alone
    return headers


def headers(exchange: Exchange, ready: Answer) -> dict[str, str]:
    """Return an answer's headers, with those that all carry; a stream's cost is known only at its end."""
    elapsed = time.perf_counter() - exchange.clock
    found = ready.headers
    waited = exchange.waited_s * 1000
    own = (elapsed - exchange.waited_s - exchange.queued_s) * 1000
    found["x-request-id"] = exchange.request_id
    if exchange.api is Api.MESSAGE or exchange.api is Api.COUNT:
        found["request-id"] = exchange.request_id  # the name that Anthropic's clients look for
    found["openai-version"] = "2020-10-01"
    found["openai-processing-ms"] = str(round(elapsed * 1000))
    overhead = f"{own:.3f}"
    found["server-timing"] = f"gateway;dur={overhead}, upstream;dur={waited:.3f}"
    found["x-trilith-overhead-ms"] = overhead
    if (release := exchange.release) is not None:
        found["x-trilith-release"] = exchange.pinned or release.digest
        if exchange.fell_back:
            found["x-trilith-fallback"] = release.model
    if exchange.budget:
        found["x-trilith-budget"] = exchange.budget.partition(":")[0].replace(" ", "; level=")
    if exchange.queued_s:
        found["x-trilith-queue-ms"] = "%.0f" % (exchange.queued_s * 1000)
    if exchange.cache is not None:
        found["x-trilith-cache"] = exchange.cache
        if exchange.recalled:
            found["age"] = str(int(exchange.cache_age_s))
    if exchange.saved_pico_usd or exchange.recalled or exchange.cascaded is not None:
        found["x-trilith-saved-usd"] = format_usd(exchange.saved_pico_usd)
    if exchange.settled and (amount := exchange.amount) is not None:
        if exchange.tries is not None:
            amount += charge.spent(exchange)
        found["x-trilith-cost-usd"] = format_usd(amount)
    if exchange.allowance is not None or exchange.token_allowance is not None:
        tell_rates(exchange, found)
    return found


def tell_rates(exchange: Exchange, found: dict[str, str]) -> None:
    """Add the headers that say how much the caller's limits leave."""
    if (allowance := exchange.allowance) is not None:
        _tell(found, "requests", allowance)
    if (allowance := exchange.token_allowance) is not None:
        _tell(found, "tokens", allowance)


def _tell(found: dict[str, str], what: str, allowance: Allowance) -> None:
    found[f"x-ratelimit-limit-{what}"] = str(allowance.limit)
    found[f"x-ratelimit-remaining-{what}"] = str(allowance.remaining)
    found[f"x-ratelimit-reset-{what}"] = duration(allowance.reset_s)


def duration(seconds: float) -> str:
    """Write a duration as Go does, which is how OpenAI does: `12ms`, `1.5s`, `6m0s`; whole milliseconds."""
    ms = round(seconds * 1000)
    if ms <= 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
