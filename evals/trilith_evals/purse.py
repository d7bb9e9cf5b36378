"""The one way to a call that costs money: kept answers first, then cap, pace, retries, and the journal.

A scorer that asks a judge wraps the call: `answer = await paid(key, call)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from trilith.errors import APIConnectionError, APIError, APIStatusError, RateLimitError
from trilith.types import Json
from trilith_evals.cache import Cache
from trilith_evals.journal import Journal, digest
from trilith_evals.pace import Pace
from trilith_evals.spend import Ledger, Payer

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Paid:
    """What a call gave, and its price."""

    value: Json
    """Plain JSON, so that it can be kept."""
    cost_pico_usd: int | None = None
    """10^-12 USD, as the server says; None when it does not."""
    kept: bool = False
    """Whether it was kept from earlier and nothing was asked now."""
    tokens: int | None = None
    """Read and written, for a limit of them; None when nobody says."""


Call: TypeAlias = Callable[[], Awaitable[Paid]]


class Late(Exception):
    """The call's time is over; not a TimeoutError, which the call may raise itself."""

    def __init__(self, within_s: float) -> None:
        super().__init__(f"no answer within {within_s:g} s")


async def paid(key: Json, call: Call, *, payer: Payer = "scorer") -> Paid:
    """Make a call within the run that is under way, unless its answer is kept.

    May be called on another event loop than the run's, as by a batch scorer in its thread; the context must
    be the run's (`asyncio.to_thread` and `contextvars.copy_context` keep it).

    Args:
        key: All that the answer depends on, as JSON: model, messages, parameters, schema, and the number of
            the try where a judge is asked several times. The case and its repeat are added here.
        call: Makes one attempt with a client that does not retry (`max_retries=0`), as retries are made here.
        payer: Whose money it is in the report.

    Raises:
        Refused: the call might exceed the cap, or the run is at its end; let it pass, the run stops.
        Late: no answer in time.
        Exception: what the last attempt raised.
    """
    purse = _PURSE.get()
    return await call() if purse is None else await purse.served(key, call, payer)


def under_purse() -> bool:
    """Whether a run is under way here, which makes the retries of paid calls."""
    return _PURSE.get() is not None


class Purse:
    """What all paid calls of one run share."""

    def __init__(
        self,
        ledger: Ledger,
        pace: Pace,
        *,
        journal: Journal | None = None,
        cache: Cache | None = None,
        max_retries: int = 2,
        timeout_s: float = 120.0,
        attempt_timeout_s: float | None = None,
    ) -> None:
        """Take the parts.

        Args:
            ledger: Counts the money.
            pace: Gives turns.
            journal: Where answers are kept for a resume.
            cache: Where answers are kept by their content.
            max_retries: Further attempts at one call.
            timeout_s: Bounds all attempts of one call (seconds), without the wait for their turn.
            attempt_timeout_s: Longest time for one of them, after which another is made; None: no limit.
        """
        self.ledger = ledger
        self._pace = pace
        self._journal = journal
        self._cache = cache
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._attempt_s = math.inf if attempt_timeout_s is None else attempt_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        if journal:
            journal.count(ledger)

    @property
    def journal(self) -> Journal | None:
        """Where answers are kept for a resume."""
        return self._journal

    @property
    def journalled(self) -> bool:
        """Whether answers are kept for a resume."""
        return self._journal is not None

    def close(self, *, remove: bool = False) -> None:
        """Close the journal, and remove it when nothing is left to resume."""
        if self._journal:
            self._journal.close(remove=remove)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Let `paid` use this purse within the block, which runs on an event loop."""
        self._loop = asyncio.get_running_loop()
        token = _PURSE.set(self)
        try:
            yield
        finally:
            _PURSE.reset(token)

    async def served(self, key: Json, call: Call, payer: Payer) -> Paid:
        """Do what the function `paid` says, on whichever loop the caller is.

        Money, pace and journal are counted on the run's own loop only; the call itself stays on the loop that
        its connections belong to.
        """
        here = asyncio.get_running_loop()
        if self._loop is None or self._loop is here:
            return await self._paid(key, call, payer)

        async def there() -> Paid:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_made(call), here))

        asked = asyncio.run_coroutine_threadsafe(self._paid(key, there, payer), self._loop)
        return await asyncio.wrap_future(asked)

    async def _paid(self, key: Json, call: Call, payer: Payer) -> Paid:
        case, repeat = _PLACE.get()
        place = digest([payer, case, repeat, key])
        if self._journal and (found := self._journal.kept(place)):
            return Paid(found["value"], found["cost"], kept=True)
        content = digest([payer, repeat, key]) if self._cache else ""
        if self._cache and (found := self._cache.get(content)):
            self.ledger.keep()
            return Paid(found["value"], 0, kept=True)
        answer = await self._asked(place, call, payer)
        if self._cache:
            self._cache.put(content, {"value": answer.value})
        return answer

    async def _asked(self, place: str, call: Call, payer: Payer) -> Paid:
        left_s = self._timeout_s
        for attempt in range(self._max_retries + 1):
            held = await self.ledger.reserve(payer)
            began = time.monotonic()
            whole = left_s <= self._attempt_s  # what is too late for this attempt is so for the call
            limits_s = (left_s, self._timeout_s) if whole else (self._attempt_s, self._attempt_s)
            try:
                async with self._pace.slot():
                    if self._journal and self.ledger.capped:
                        self._journal.begin(place, payer, held if self.ledger.certain(payer) else 0)
                    began = time.monotonic()
                    answer = await in_time(call(), *limits_s)
            except BaseException as error:
                self._lost(place, payer, held, error)
                left_s -= time.monotonic() - began
                pause_s = _pause_s(error, attempt)
                if isinstance(error, RateLimitError):
                    self._pace.slower(began, pause_s or 0.0)
                over = left_s <= 0 or (whole and isinstance(error, Late))
                if pause_s is None or attempt == self._max_retries or over:
                    raise
                await asyncio.sleep(pause_s)
                continue
            self._pace.well(time.monotonic() - began, answer.tokens)
            known = self.ledger.certain(payer)
            try:
                self.ledger.settle(payer, held, answer.cost_pico_usd)
            finally:
                if self._journal:
                    cost = answer.cost_pico_usd
                    if cost is None and self.ledger.capped and known:
                        cost = held
                    self._journal.add(place, payer, answer.value, cost)
            return replace(answer, kept=False)
        raise AssertionError("the last attempt returns or raises")

    def _lost(self, place: str, payer: Payer, held: int, error: BaseException) -> None:
        # A status says that nothing was answered; where an answer broke or was left, it may be charged.
        unsent = isinstance(error, APIConnectionError) and not error.sent
        charged = not (isinstance(error, APIStatusError) or unsent)
        known = self.ledger.certain(payer)
        self.ledger.lost(payer, held, charged=charged)
        if self._journal and self.ledger.capped:
            self._journal.end(place, payer, held if charged and known else 0)


async def _made(call: Call) -> Paid:
    return await call()


def _pause_s(error: BaseException, attempt: int) -> float | None:
    """Return how long to wait before the next attempt; None: another one is of no use."""
    broken = isinstance(error, APIError) and not isinstance(error, APIStatusError | APIConnectionError)
    if broken:  # an answer that is no JSON: the next one may be whole, and nobody is overloaded
        return 0.0
    if isinstance(error, Late | TimeoutError):  # lost on its way, or its server is at its limit
        return _jitter(attempt)
    if not isinstance(error, APIError) or not error.retryable:
        return None
    asked: float | None = error.retry_after_s if isinstance(error, APIStatusError) else None
    if asked is not None:
        return min(asked, _LONGEST_PAUSE_S)
    return _jitter(attempt)


def _jitter(attempt: int) -> float:
    # In full: calls that failed together do not come back together.
    longest_s: float = min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S)
    return random.random() * longest_s


async def in_time(answer: Awaitable[T], timeout_s: float, told_s: float | None = None) -> T:
    """Await an answer.

    Args:
        answer: What is awaited.
        timeout_s: For how long (seconds).
        told_s: What the error names instead, where `timeout_s` is what is left of it (seconds).

    Raises:
        Late: it did not come.
    """
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await answer
    except TimeoutError:
        if deadline.expired():
            raise Late(timeout_s if told_s is None else told_s) from None
        raise


@contextlib.contextmanager
def place(case: str, repeat: int) -> Iterator[None]:
    """Say for which case, and which of its repeats, the block calls."""
    token = _PLACE.set((case, repeat))
    try:
        yield
    finally:
        _PLACE.reset(token)


_PURSE: ContextVar[Purse | None] = ContextVar("trilith_eval_purse", default=None)
_PLACE: ContextVar[tuple[str, int]] = ContextVar("trilith_eval_place", default=("", 0))
