"""The gateway's own words to a caller: errors in the caller's protocol, and response headers."""

from __future__ import annotations

import time

from trilith.errors import APIError, APIStatusError, BudgetExceededError
from trilith.money import format_usd
from trilith_gateway import fault, sse
from trilith_gateway.exchange import Answer, Exchange


def error(exchange: Exchange, error: APIError) -> Answer:
    """Return the answer that tells a caller of an error."""
    headers = {"content-type": "application/json"}
    if isinstance(error, APIStatusError):
        if error.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        if isinstance(error, BudgetExceededError):
            headers["x-should-retry"] = "false"
    return Answer(fault.status(error), headers, sse.dump(exchange.operation.error(error)))


def headers(exchange: Exchange, ready: Answer) -> dict[str, str]:
    """Return an answer's headers, with those that all carry; a stream's cost is known only at its end."""
    elapsed = time.perf_counter() - exchange.clock
    found = ready.headers
    own, waited = (elapsed - exchange.waited_s) * 1000, exchange.waited_s * 1000
    found["x-request-id"] = exchange.request_id
    found["openai-version"] = "2020-10-01"
    found["openai-processing-ms"] = "%.0f" % (elapsed * 1000)
    found["server-timing"] = f"gateway;dur={own:.3f}, upstream;dur={waited:.3f}"
    found["x-trilith-overhead-ms"] = f"{own:.3f}"
    if (release := exchange.release) is not None:
        found["x-trilith-release"] = release.digest
        if exchange.fell_back:
            found["x-trilith-fallback"] = release.model
    if exchange.recalled:
        found["x-trilith-cache"] = "hit"
        found["x-trilith-saved-usd"] = format_usd(exchange.saved_pico_usd)
    if exchange.settled and exchange.amount is not None:
        found["x-trilith-cost-usd"] = format_usd(exchange.amount)
    if (allowance := exchange.allowance) is not None:
        found["x-ratelimit-limit-requests"] = str(allowance.limit)
        found["x-ratelimit-remaining-requests"] = str(allowance.remaining)
        found["x-ratelimit-reset-requests"] = f"{allowance.reset_s:.3f}s"
    return found
