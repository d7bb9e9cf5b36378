"""Stage 8, settle: usage -> charge, by a named rule; the reservation is replaced by it."""

from __future__ import annotations

import time
from collections.abc import Callable

from trilith.money import cost
from trilith.types import Usage
from trilith_gateway.api import Api
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange, Rule, store_unavailable
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.store.journal import Record
from trilith_gateway.usage import estimate


class Settle:
    """Charges each admitted request exactly once."""

    def __init__(self, budgets: Budgets | LeasedBudgets, append: Callable[[Record], None]) -> None:
        self._budgets = budgets
        self._append = append

    def __call__(self, exchange: Exchange) -> None:
        """Put the charge on disk and into the key's account."""
        if not exchange.admitted or exchange.release is None:
            return  # nothing was reserved, nothing can be owed
        exchange.rule, usage = _rule(exchange)
        price = exchange.release.price
        if exchange.rule in (Rule.CACHED, Rule.FAILED):
            exchange.amount = 0
        elif price is None:
            exchange.rule = Rule.UNPRICED
        else:
            exchange.amount = cost(usage, price)
        now = time.time()
        try:
            self._append(_row(exchange, usage, now))
        except OSError as error:
            raise store_unavailable() from error
        finally:
            if exchange.reserved is not None:
                self._budgets.settle(exchange.caller, exchange.reserved, exchange.amount or 0, now)


_NOTHING = Usage(requests=0)


def _rule(exchange: Exchange) -> tuple[Rule, Usage]:
    if exchange.recalled:
        return Rule.CACHED, _NOTHING
    answered = exchange.answer is not None and exchange.answer.status < 400
    if exchange.rule in (Rule.ABORTED, Rule.BROKEN):  # set by the pipeline
        return (exchange.rule, exchange.usage) if exchange.usage else (exchange.rule, _NOTHING)
    if not answered:
        return Rule.FAILED, _NOTHING
    if exchange.usage is not None:
        return Rule.USAGE, exchange.usage
    received = (
        exchange.delivered_bytes if exchange.stream else len(exchange.answer.body if exchange.answer else b"")
    )
    if exchange.api is Api.EMBEDDING:
        received = 0
    return Rule.ESTIMATE, estimate(exchange.body_bytes, received)


def _row(exchange: Exchange, usage: Usage, now: float) -> Record:
    release, key = exchange.target, exchange.caller
    first = exchange.first_byte_at
    return {
        "t": "charge",
        "id": exchange.id,
        "request_id": exchange.request_id,
        "at": now,
        "key_id": key.id,
        "team": key.team,
        "model": release.model,
        "kind": release.kind._value_,  # `value` is a property in Python
        "release": release.digest,
        "status": 499
        if exchange.rule is Rule.ABORTED
        else exchange.answer.status
        if exchange.answer
        else 500,
        "rule": exchange.rule._value_ if exchange.rule else "",
        "price": release.price_id,
        "amount_pico_usd": exchange.amount,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "rows": usage.rows,
        "requests": usage.requests,
        "duration_ms": (time.perf_counter() - exchange.clock) * 1000,
        "first_byte_ms": None if first is None else (first - exchange.clock) * 1000,
        "streamed": int(exchange.stream),
    }
