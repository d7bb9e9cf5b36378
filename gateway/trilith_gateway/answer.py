"""The gateway's own words to a caller: error bodies in the caller's protocol, and response headers."""

from __future__ import annotations

import time

from trilith.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError, BudgetExceededError
from trilith.money import format_usd
from trilith_gateway import sse
from trilith_gateway.exchange import Answer, Api, Exchange

_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def error(exchange: Exchange, fault: APIError) -> Answer:
    """Return the answer that tells a caller of an error."""
    status = status_of(fault)
    headers = {"content-type": "application/json"}
    if isinstance(fault, APIStatusError):
        if fault.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(fault.retry_after_s)))
        if isinstance(fault, BudgetExceededError):
            headers["x-should-retry"] = "false"
    if exchange.api is Api.PREDICT:  # the Open Inference Protocol's errors are a string
        return Answer(status, headers, sse.dump({"error": fault.message}))
    return Answer(status, headers, sse.dump(error_object(fault)))


def error_object(fault: APIError) -> dict[str, object]:
    """Return OpenAI's error object."""
    status = status_of(fault)
    return {
        "error": {
            "message": fault.message,
            "type": getattr(fault, "type", None) or _TYPES.get(status, "server_error"),
            "param": getattr(fault, "param", None),
            "code": getattr(fault, "code", None),
        }
    }


def status_of(fault: APIError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(fault, APIStatusError):
        return fault.status_code
    if isinstance(fault, APITimeoutError):
        return 504
    return 502 if isinstance(fault, APIConnectionError) else 500


def headers(exchange: Exchange) -> dict[str, str]:
    """Return the headers that every answer carries; a stream's cost is known only at its end."""
    elapsed_ms = (time.perf_counter() - exchange.clock) * 1000
    found = {"x-request-id": exchange.id, "openai-processing-ms": f"{elapsed_ms:.0f}"}
    if exchange.release is not None:
        found["x-trilith-release"] = exchange.release.version
    if exchange.recalled:
        found["x-trilith-cache"] = "hit"
    if exchange.settled and exchange.amount is not None:
        found["x-trilith-cost-usd"] = format_usd(exchange.amount)
    if (allowance := exchange.allowance) is not None:
        found["x-ratelimit-limit-requests"] = str(allowance.limit)
        found["x-ratelimit-remaining-requests"] = str(allowance.remaining)
        found["x-ratelimit-reset-requests"] = f"{allowance.reset_s:.3f}s"
    return found
