"""Error bodies in the callers' protocols."""

from __future__ import annotations

from typing import Any

from trilith.errors import APIConnectionError, APIError, APIStatusError, APITimeoutError

_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


def status(error: APIError) -> int:
    """Return the HTTP status for an error."""
    if isinstance(error, APIStatusError):
        return error.status_code
    if isinstance(error, APITimeoutError):
        return 504
    return 502 if isinstance(error, APIConnectionError) else 500


def openai(error: APIError) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {
        "error": {
            "message": error.message,
            "type": getattr(error, "type", None) or _TYPES.get(status(error), "server_error"),
            "param": getattr(error, "param", None),
            "code": "timeout" if isinstance(error, APITimeoutError) else getattr(error, "code", None),
        }
    }


def inference(error: APIError) -> dict[str, Any]:
    """Return the Open Inference Protocol's error, which is a string."""
    return {"error": error.message}
