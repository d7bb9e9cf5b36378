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
    asked_again: int = 0
    """Calls that were made because the first reply was no verdict."""
    unpriced: int = 0
    """Calls whose price nobody told."""


class Asker:
    """Asks models through one client."""

    def __init__(self, client: AsyncClient, *, timeout_s: float) -> None:
        """Take a client, which stays its owner's to close.

        Args:
            client: Open client.
            timeout_s: Longest time for one call, its retries included (seconds).
        """
        self._raw = client.with_raw_response
        self._timeout_s = timeout_s

    async def send(
        self, model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> RawResponse[ChatCompletion]:
        """Make one paid call. The only place in this package that does."""
        async with asyncio.timeout(self._timeout_s):
            answer: RawResponse[ChatCompletion] = await self._raw.chat.completions.create(
                model=model, messages=messages, **options
            )
        return answer

    async def sample(
        self,
        model: str,
        messages: list[dict[str, Any]],
        scale: Scale,
        options: Mapping[str, Any],
    ) -> Sample:
        """Return one verdict; raises nothing that a call may raise.

        A reply that holds no verdict is answered once with a request for one; that call is paid and counted
        as any other.
        """
        cost = unpriced = calls = 0
        found = Reading(None)
        for again in (False, True):
            asked = [*messages, {"role": "user", "content": prompt.AGAIN}] if again else messages
            calls += 1
            try:
                answer = await self.send(model, asked, options)
            except TimeoutError:
                problem = f"the judge gave no answer within {self._timeout_s:g} s"
                return Sample(model, None, problem, "", "", True, cost, calls, again, unpriced + 1)
            except (APIError, EngineError) as error:
                status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
                problem = f"the judge's call failed: {type(error).__name__}{status}"
                blameless = isinstance(error, _PASSING)
                return Sample(model, None, problem, "", str(error), blameless, cost, calls, again, unpriced)
            price = _told(answer.headers)
            cost += price or 0
            unpriced += price is None
            try:
                found = read(answer.parse(), scale)
            except APIError as error:  # paid for, and still no completion
                problem = "the judge's server sent no completion"
                return Sample(model, None, problem, "", str(error), True, cost, calls, again, unpriced)
            if found.value is not None or found.hopeless:
                break
        again = calls > 1
        return Sample(
            model, found.value, found.problem, found.reasons, "", False, cost, calls, again, unpriced
        )


def _told(headers: Mapping[str, str]) -> int | None:
    try:
        return pico_usd(headers[_COST])
    except (KeyError, ValueError, ArithmeticError):
        return None
