"""Asks a judging model for one verdict: the call, its price, one more try where the reply was none."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trilith.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    EngineError,
    InternalServerError,
    RateLimitError,
)
from trilith.money import pico_usd
from trilith_evals.judging import prompt
from trilith_evals.judging.reply import Reading, read
from trilith_evals.judging.rubric import Scale
from trilith_evals.purse import Late, Paid, paid, under_purse

if TYPE_CHECKING:
    from trilith import AsyncClient
    from trilith.client.raw import RawResponse
    from trilith.client.schema import ChatCompletion

_PASSING = (APIConnectionError, InternalServerError, RateLimitError, EngineError)
_COST = "x-trilith-cost-usd"


@dataclass(frozen=True, slots=True)
class Sample:
    """One verdict of one model, or why there is none."""

    model: str
    value: float | None
    problem: str = ""
    """Short, the same for the same cause, free of the case's content."""
    reasons: str = ""
    detail: str = ""
    """An error's message; may quote the case."""
    infrastructure: bool = False
    """Whether network, gateway or engine were at fault."""
    cost_pico_usd: int = 0
    """Of all its calls (10^-12 USD)."""
    calls: int = 0
    """Answers that it took, kept ones included."""
    asked_again: int = 0
    """Answers that were asked for because the first was no verdict."""
    unpriced: int = 0
    """Calls whose price nobody told."""
    kept: int = 0
    """Answers that were kept from earlier, so that nothing was asked."""


@dataclass
class Bill:
    """What one verdict's calls come to, those included that came to nothing."""

    cost_pico_usd: int = 0
    calls: int = 0
    """Calls that were made, repeated ones included."""
    unpriced: int = 0
    kept: int = 0

    def add(self, price: int | None) -> None:
        """Count a call that was made; None: nobody said what it cost."""
        self.calls += 1
        self.cost_pico_usd += price or 0
        self.unpriced += price is None

    def keep(self, price: int | None) -> None:
        """Count an answer that was kept: the price is what this run has paid for it before."""
        self.kept += 1
        self.cost_pico_usd += price or 0


class Asker:
    """Asks models through one client."""

    def __init__(self, client: AsyncClient, *, timeout_s: float) -> None:
        """Take a client, which stays its owner's to close.

        Args:
            client: Open client; it tries again itself only where no run does (see `trilith_evals.purse`).
            timeout_s: Longest time for one call, the client's own retries included (seconds).
        """
        self._raw = client.with_raw_response
        self._once = client.with_options(max_retries=0).with_raw_response
        self._timeout_s = timeout_s

    async def send(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        number: Sequence[int],
        bill: Bill,
    ) -> ChatCompletion:
        """Make one paid call, unless its answer is kept. The only place in this package that does.

        Raises:
            CapReached, CostUntold: the run's affair.
            Late, TimeoutError: no answer in time.
            APIError, EngineError: there was no answer, or none that is a completion.
        """
        raw = self._once if under_purse() else self._raw

        async def call() -> Paid:
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer: RawResponse[ChatCompletion] = await raw.chat.completions.create(
                        model=model, messages=messages, **options
                    )
            except (TimeoutError, asyncio.CancelledError):
                bill.add(None)  # it may have been answered, too late
                raise
            price = _told(answer.headers)
            bill.add(price)  # also where what was paid for is no completion
            return Paid(answer.parse().model_dump(mode="json", exclude_none=True), price)

        from trilith.client.schema import ChatCompletion

        asked = {"model": model, "messages": list(messages), "options": dict(options), "number": list(number)}
        found = await paid({"judge": asked}, call)
        if found.kept:
            bill.keep(found.cost_pico_usd)
        return ChatCompletion.model_validate(found.value)

    async def sample(
        self,
        model: str,
        messages: list[dict[str, Any]],
        scale: Scale,
        options: Mapping[str, Any],
        number: Sequence[int] = (),
    ) -> Sample:
        """Return one verdict; raises nothing that a call may raise, only what ends the whole run.

        A reply that holds no verdict is answered once with a request for one; that call is paid and counted
        as any other.

        Args:
            model: Who is asked.
            messages: What it reads.
            scale: What a verdict may be.
            options: Sent with every call.
            number: Which of several samples of the same question this is; each is an answer of its own.

        Raises:
            CapReached: the next call might exceed the run's cost cap.
            CostUntold: there is a cap, and nobody tells prices.
        """
        bill, calls = Bill(), 0
        found = Reading(None)

        def none(problem: str, detail: str = "", *, blameless: bool = True) -> Sample:
            spent = bill.cost_pico_usd, calls, calls - 1, bill.unpriced, bill.kept
            return Sample(model, None, problem, "", detail, blameless, *spent)

        for again in (False, True):
            asked = [*messages, {"role": "user", "content": prompt.AGAIN}] if again else messages
            calls += 1
            told = bill.calls
            try:
                reply = await self.send(model, asked, options, number, bill)
            except Late:
                return none("the judge gave no answer in time")
            except TimeoutError:
                return none(f"the judge gave no answer within {self._timeout_s:g} s")
            except (APIError, EngineError) as error:
                if bill.calls > told and _is_broken(error):
                    return none("the judge's server sent no completion", str(error))
                status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
                problem = f"the judge's call failed: {type(error).__name__}{status}"
                return none(problem, str(error), blameless=isinstance(error, _PASSING))
            found = read(reply, scale)
            if found.value is not None or found.hopeless:
                break
        spent = bill.cost_pico_usd, calls, calls - 1, bill.unpriced, bill.kept
        return Sample(model, found.value, found.problem, found.reasons, "", False, *spent)


def _is_broken(error: Exception) -> bool:
    """Whether an answer came, and was no completion."""
    return isinstance(error, APIError) and not isinstance(error, APIStatusError | APIConnectionError)


def _told(headers: Mapping[str, str]) -> int | None:
    try:
        return pico_usd(headers[_COST])
    except (KeyError, ValueError, ArithmeticError):
        return None
