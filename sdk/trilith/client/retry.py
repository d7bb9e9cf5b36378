"""What an answer means for the call: its error, whether to try again, and after which pause."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

from trilith.client.wire import Answer
from trilith.errors import APIError, APIStatusError, BudgetExceededError, status_error_class

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
"""Bounds of the pause that we choose ourselves; it doubles with each try."""

LONGEST_OBEYED_S = 60.0
"""A server that asks for a longer pause (seconds) is not obeyed: nobody waits that long inside a call."""

_RETRIED = frozenset({408, 409, 429})


class Retries:
    """The tries of one call.

    Args:
        most: How many tries may follow the first.
        chance: Returns a number in [0, 1).
    """

    def __init__(self, most: int, chance: Callable[[], float]) -> None:
        self._left = most
        self._chance = chance
        self._longest_s = FIRST_PAUSE_S

    def pause_s(self, error: APIError) -> float:
        """Return how long to wait before the next try (seconds).

        Raises:
            APIError: the error itself, because there is no next try.
        """
        if self._left <= 0 or not error.retryable:
            raise error
        self._left -= 1
        # Full jitter: callers who failed together do not come back together.
        pause = self._chance() * self._longest_s
        self._longest_s = min(self._longest_s * 2, LONGEST_PAUSE_S)
        asked = error.retry_after_s if isinstance(error, APIStatusError) else None
        return asked if asked is not None and 0 < asked <= LONGEST_OBEYED_S else pause


def error_of(answer: Answer, *, now: Callable[[], float] = time.time) -> APIStatusError:
    """Return the error that an answer stands for; it knows whether the call may be tried again.

    Args:
        answer: Its body is OpenAI's error object, the Open Inference Protocol's string, or anything.
        now: Unix time (seconds), for answers that name a date to come back at.
    """
    body = _decoded(answer.body)
    fields = _fields(body)
    code = fields.get("code")
    kind = status_error_class(answer.status, None if code is None else str(code))
    error = kind(
        str(fields.get("message") or _in_other_words(answer)),
        status_code=answer.status,
        code=None if code is None else str(code),
        param=_text(fields.get("param")),
        type=_text(fields.get("type")),
        request_id=answer.headers.get("x-request-id"),
        retry_after_s=_retry_after_s(answer.headers, now),
        body=body,
    )
    error.retryable = _retryable(answer, error)
    return error


def _retryable(answer: Answer, error: APIStatusError) -> bool:
    told = answer.headers.get("x-should-retry", "").strip().lower()
    if told in ("true", "false"):
        return told == "true"
    if isinstance(error, BudgetExceededError):
        return False
    return answer.status in _RETRIED or answer.status >= 500


def _retry_after_s(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """Read `retry-after-ms`, else `retry-after`: seconds, or a date (RFC 9110, section 10.2.3)."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * unit_s)
        except (KeyError, ValueError):
            continue
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    if date.tzinfo is None:  # "-0000": the time is in UTC, and says nothing of its zone
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now())


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _fields(body: object) -> dict[str, Any]:
    """Find message, type, param and code, wherever servers put them."""
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body.get("detail"))
    if isinstance(error, dict):
        return error
    if error is None:
        return body  # older vLLM: the fields without a wrapper
    return {"message": error if isinstance(error, str) else json.dumps(error)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _in_other_words(answer: Answer) -> str:
    if 300 <= answer.status < 400:
        where = answer.headers.get("location", "elsewhere")
        return f"the server redirects to {where} ({answer.status}); set base_url to where the gateway answers"
    said = answer.body[:200].decode("utf-8", errors="replace").strip()
    return f"the server answered {answer.status}" + (f": {said}" if said else " without saying why")
