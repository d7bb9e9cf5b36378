"""What a try ended in, and what follows from it: the one table of what is tried again.

| cause | acted upon? | tried again |
| --- | --- | --- |
| no connection, name not found | no | elsewhere, else at the same replica after a moment |
| reset or closed before the answer was whole | perhaps | the same, if the call is repeatable |
| no answer within `attempt_timeout_s` | perhaps | elsewhere, if the call is repeatable |
| 429, 503, 529 (Anthropic: overloaded) | no | elsewhere; the replica rests as long as its Retry-After says |
| 500, 502, 504 | perhaps | elsewhere, if the call is repeatable |
| the request's own time is up | perhaps | never |
| a stream that breaks after its head | yes | never: the caller has seen its beginning |
| any other status | yes | never: it is the answer |

A kept connection that is closed before a byte of an answer is replaced at once, if the call is repeatable;
that counts as one of the tries (`APIConnectionError.sends`), and the last try takes no such connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, auto

from trilith.errors import APIConnectionError, APITimeoutError

_MOST_REST_S = 60.0
_REFUSED = frozenset({429, 503, 529})
_FAILED = frozenset({500, 502, 504})


class Again(Enum):
    """Where a call may be tried again."""

    NOWHERE = auto()
    ELSEWHERE = auto()
    """At another replica only: what this one said is an answer as long as no other gives a better one."""
    ANYWHERE = auto()


class AttemptTimeoutError(APIConnectionError):
    """One replica took too long, and the request has time left."""


def after_error(error: APIConnectionError, *, repeatable: bool) -> Again:
    """Say where to try again when no answer came."""
    if isinstance(error, APITimeoutError) or not error.retryable:
        return Again.NOWHERE
    if not error.sent:
        return Again.ANYWHERE
    if not repeatable:
        return Again.NOWHERE
    return Again.ELSEWHERE if isinstance(error, AttemptTimeoutError) else Again.ANYWHERE


def after_status(status: int, *, repeatable: bool) -> Again:
    """Say where to try again when an answer with this status came."""
    if status in _REFUSED or (status in _FAILED and repeatable):
        return Again.ELSEWHERE
    return Again.NOWHERE


def sick(status: int) -> bool:
    """Say whether an answer speaks against its replica; 429 does not: it is well, and full."""
    return status in _FAILED or status in (503, 529)


def rest_s(status: int, headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float:
    """Return how long a replica wants to be left alone (seconds, at most 60); 0 when it does not say.

    `retry-after-ms` is OpenAI's; `retry-after` is a number of seconds or a date (RFC 9110, section 10.2.3).
    """
    if status not in _REFUSED:
        return 0.0
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(_MOST_REST_S, max(0.0, float(headers[name]) * unit_s))
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return 0.0
    return min(_MOST_REST_S, max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now()))
