"""How long a request may take, in its caller's words, and what of it is left for an upstream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TypeVar

from trilith.errors import APITimeoutError
from trilith.seams import Call
from trilith_gateway.request import refuse

HEADER = "x-request-timeout-ms"
"""Bounds a request from its first byte to its last (milliseconds), and tells an upstream what is left."""
READ_HEADER = "x-stainless-read-timeout"
"""From the OpenAI SDK: the longest silence that it bears (seconds). So it bounds an answer's head, and the
whole of an answer that is no stream, which is silent until it is there."""

T = TypeVar("T")


def read(headers: Mapping[str, str], *, stream: bool) -> tuple[float | None, float | None]:
    """Return the longest time to the answer's end and to its head (seconds); None where the caller sets none.

    Raises:
        BadRequestError: `x-request-timeout-ms` is no number above 0.
    """
    given, silence = headers.get(HEADER), headers.get(READ_HEADER)
    whole = head = None
    if given is not None:
        whole = head = _number(given, 1000)
        if whole is None:
            refuse(f"`{HEADER}` is {given[:20]!r}, expected a number of milliseconds above 0.", None)
    if silence is not None and (most := _number(silence, 1)) is not None:
        head = most if head is None else min(head, most)
        if not stream:
            whole = head
    return whole, head


def within(call: Call, left_s: float) -> Call:
    """Return the call with what is left of its time (seconds); its upstream is told if its caller set one."""
    if HEADER not in call.headers:
        return replace(call, timeout_s=left_s)
    return replace(call, timeout_s=left_s, headers={**call.headers, HEADER: told(left_s)})


def told(left_s: float) -> str:
    """Return a time (seconds) as the header has it."""
    return str(max(1, int(left_s * 1000)))


async def by(until: float, work: Awaitable[T]) -> T:
    """Do some work, and give it up at `until` (`time.perf_counter()`).

    Raises:
        APITimeoutError: it was not done by then; it was cancelled.
    """
    try:
        async with asyncio.timeout(until - time.perf_counter()):
            return await work
    except TimeoutError:
        raise passed() from None


def passed() -> APITimeoutError:
    """Make the error for a request whose time is up; another try would not find more of it."""
    error = APITimeoutError("The request's time is up; its caller, or the gateway, allows no more.")
    error.retryable = False
    return error


def _number(text: str, per: int) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value / per if 0 < value < float("inf") else None
