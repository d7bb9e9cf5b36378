"""How a charge came about: the rules, and what one try that is over cost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trilith.types import Usage
from trilith_gateway.release import Release


class Rule(StrEnum):
    """By which rule a charge came about; every row of the ledger names one."""

    __hash__ = str.__hash__  # in C; an enum's own is not

    USAGE = "usage"
    """The upstream reported what was used."""
    ESTIMATE = "estimate"
    """The upstream answered without usage: tokens are counted as bytes / 3, rounded up."""
    REQUEST = "request"
    """The upstream answered without usage, and the request tells it: images, seconds, characters."""
    ABORTED = "aborted"
    """The caller left: what the upstream had reported by then is charged; of an answer that had begun and
    reported nothing yet, what the request tells (images, seconds, characters), or else an estimate of what
    had come of its stream (the row's `estimated` is 1)."""
    BROKEN = "broken"
    """The upstream broke off: charged as if the caller had left."""
    CACHED = "cached"
    """Answered from the cache, or by a call that another one pays for: nothing is charged."""
    FAILED = "failed"
    """No answer: nothing is charged."""
    UNPRICED = "unpriced"
    """The model has no price: the amount is unknown, not zero."""


@dataclass(slots=True)
class Try:
    """One try that is over, and what it cost."""

    release: Release
    rule: Rule
    usage: Usage
    status: int
    amount: int | None
    """Pico-USD; None: unpriced."""
    upstream: str = ""
    by_caller: bool = False
    """Whether the caller pays; otherwise the platform does."""
    estimated: bool = False
    stands_for: int | None = None
    """What it counts in budgets while nobody can price it (pico-USD); None: that is not said yet."""
