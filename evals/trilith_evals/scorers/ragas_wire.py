"""Carries ragas's calls: each request is one paid call of the run, whatever library wrote it.

ragas asks through instructor, which asks through openai's client; the request on the wire is the only place
that sees every call, those that instructor repeats included.
"""

from __future__ import annotations

import contextvars
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from trilith.client.retry import error_of
from trilith.client.wire import Answer
from trilith.errors import APIConnectionError, APIError
from trilith.extras import need
from trilith.money import pico_usd
from trilith_evals.purse import Late, Paid, paid
from trilith_evals.spend import Refused

_COST = "x-trilith-cost-usd"


@dataclass
class Meter:
    """What one row's calls came to, answers that ragas threw away included."""

    calls: int = 0
    cost_pico_usd: int = 0
    refused: Refused | None = None
    """Why no further call is made in this run."""
    asked: Counter[str] = field(default_factory=Counter)
    """How often each request was made: ragas asks one question several times, and wants several answers."""


@contextmanager
def metered() -> Iterator[Meter]:
    """Count the calls made in this context, and in tasks that it starts."""
    meter = Meter()
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


_METER: contextvars.ContextVar[Meter | None] = contextvars.ContextVar("ragas_meter", default=None)


def transport() -> Any:
    """Return an httpx transport whose requests are paid calls; errors of status come back as answers."""
    httpx: Any = need("httpx", extra="evals")

    class Paying(httpx.AsyncHTTPTransport):  # type: ignore[misc]
        async def handle_async_request(self, request: Any) -> Any:
            body, meter = (await request.aread()).decode(), _METER.get() or Meter()
            meter.asked[body] += 1
            last: Answer | None = None

            async def call() -> Paid:
                nonlocal last
                last = None
                meter.calls += 1
                try:
                    response = await super(Paying, self).handle_async_request(request)
                    raw = await response.aread()
                except httpx.TransportError as error:
                    unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
                    raise APIConnectionError(type(error).__name__, sent=not unsent) from error
                last = Answer(response.status_code, response.headers, raw)
                if last.status != 200:
                    raise error_of(last)
                price = _told(last.headers)
                meter.cost_pico_usd += price or 0
                try:
                    return Paid(json.loads(raw), price)
                except ValueError as error:
                    raise APIError("the judge's answer is not JSON") from error

            try:
                key = {"ragas": [json.loads(body), meter.asked[body]]}
                found = await paid(key, call)
            except Refused as error:
                meter.refused = error
                raise
            except Late as error:
                raise httpx.ReadTimeout("no answer in time") from error
            except APIError:
                if last is None:
                    raise
                headers = {"content-type": last.headers.get("content-type", "application/json")}
                headers |= {"location": last.headers["location"]} if "location" in last.headers else {}
                return httpx.Response(last.status, headers=headers, content=last.body)
            if found.kept:
                meter.cost_pico_usd += found.cost_pico_usd or 0
            return httpx.Response(200, json=found.value)

    return Paying()


def _told(headers: Any) -> int | None:
    try:
        return pico_usd(headers[_COST])
    except (KeyError, ValueError, ArithmeticError):
        return None
