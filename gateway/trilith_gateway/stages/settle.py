"""Stage 8, settle: usage -> charge, by a named rule; the reservation is replaced by it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from trilith.money import Meter
from trilith.seams import Tried
from trilith.types import Usage
from trilith_gateway import charge
from trilith_gateway.api import Api
from trilith_gateway.budget import Budgets
from trilith_gateway.caching.flight import Ticket
from trilith_gateway.exchange import Exchange, store_unavailable
from trilith_gateway.limits.keeper import LimitKeeper
from trilith_gateway.rule import Rule
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.store.journal import Record
from trilith_gateway.usage import estimate

_log = logging.getLogger(__name__)

_ALARM_S = 3600.0
"""How often the same reason for not knowing a price is told (seconds)."""


class Settle:
    """Charges each admitted request exactly once."""

    def __init__(
        self, budgets: Budgets | LeasedBudgets, limits: LimitKeeper, append: Callable[[Record], None]
    ) -> None:
        self._budgets = budgets
        self._limits = limits
        self._append = append
        self._meters: dict[str, Meter] = {}
        self._told: dict[str, float] = {}

    def __call__(self, exchange: Exchange) -> None:
        """Put the charge on disk and into the key's account."""
        if not exchange.admitted or exchange.release is None:
            if exchange.tokens_taken is not None:
                self._limits.end(exchange, 0)
            return  # nothing was reserved, nothing can be owed
        exchange.rule, usage, estimated = _rule(exchange)
        if exchange.ticket is not None:
            usage = _shared(exchange, exchange.ticket, exchange.rule, usage)
            estimated = estimated and usage.requests > 0
        if exchange.tokens_taken is not None:
            self._limits.end(exchange, usage.input_tokens + usage.output_tokens)
        if exchange.rule in (Rule.CACHED, Rule.FAILED):
            exchange.amount = 0
        else:
            meter = self._meter(exchange.model) if usage.particulars.cpu_ns else None
            exchange.amount = charge.rated(usage, exchange.release, meter)
            if exchange.amount is None:
                exchange.rule = Rule.UNPRICED
        at = exchange.reserved_at or time.time()
        try:
            for tried in exchange.tries or ():
                row = charge.row(exchange, at, tried.usage, estimated=tried.estimated, tried=tried)
                self._append(row)
            self._append(charge.row(exchange, at, usage, estimated=estimated))
            if exchange.rule is Rule.UNPRICED:
                self._alarm(exchange, usage, at)
        except OSError as error:
            raise store_unavailable() from error
        finally:
            if exchange.reserved is not None:
                # What is used and cannot be priced counts as much as was reserved for it, lest it be free.
                own = exchange.reserved if exchange.amount is None else exchange.amount
                total = own + charge.owed(exchange)
                self._budgets.settle(exchange.caller, exchange.reserved, total, at)

    def _meter(self, model: str) -> Meter:
        found = self._meters.get(model)
        if found is None:
            found = self._meters[model] = Meter()
        return found

    def _alarm(self, exchange: Exchange, usage: Usage, now: float) -> None:
        """Tell log and audit that an amount is unknown; the metric `trilith_charges` counts each one."""
        release = exchange.target
        if release.price is None:
            return  # `/v1/models` and the start's log say so
        reason = f"{release.model} {release.price_id} {usage.particulars.tier}"
        if now - self._told.get(reason, 0.0) < _ALARM_S:
            return
        self._told[reason] = now
        detail = {
            "request_id": exchange.request_id,
            "model": release.model,
            "price": release.price_id,
            "parts": list(charge.unpriced(usage, release.price)),
        }
        _log.warning("a call of %s cannot be priced: %s", release.model, ", ".join(detail["parts"]))
        self._append(
            {
                "t": "audit",
                "id": secrets.token_hex(12),
                "at": now,
                "event": "price.unknown",
                "detail": detail,
            }
        )


def _rule(exchange: Exchange) -> tuple[Rule, Usage, bool]:
    """Return the rule, the usage that it charges, and whether that is an estimate."""
    if exchange.recalled:
        return Rule.CACHED, charge.NOTHING, False
    answered = exchange.answer is not None and exchange.answer.status < 400
    rule = exchange.rule
    if rule is Rule.ABORTED or rule is Rule.BROKEN:  # set on the way
        if exchange.usage is not None:
            return rule, exchange.usage, False
        if exchange.tally is None or not (tokens := exchange.tally.tokens()):
            return rule, charge.NOTHING, False
        return rule, _cut(exchange, Usage(-(-exchange.body_bytes // 3), tokens)), True
    if not answered:
        answer = exchange.answer
        own = exchange.ticket is None or exchange.ticket.pays
        if own and answer is not None and exchange.reply is not None and b'"usage"' in answer.body:
            # An error that was billed; the caller got nothing for it.
            charge.note_tried(exchange, Tried("", answer.status, answer.body))
        return Rule.FAILED, charge.NOTHING, False
    if exchange.usage is not None:
        return Rule.USAGE, exchange.usage, False
    if exchange.operation.counts is not None:
        whole = exchange.answer.body if exchange.answer is not None else b""
        return Rule.REQUEST, exchange.operation.counts(exchange.body, whole), False
    if exchange.tally is not None:
        used = Usage(-(-exchange.body_bytes // 3), exchange.tally.tokens())
    else:
        received = exchange.delivered_bytes if exchange.stream else len(exchange.answer.body)  # type: ignore[union-attr]
        used = estimate(exchange.body_bytes, 0 if exchange.api in _WRITES_NOTHING else received)
    return Rule.ESTIMATE, _cut(exchange, used), True


_WRITES_NOTHING = frozenset({Api.EMBEDDING, Api.RERANK, Api.MODERATION})
"""Operations whose answers are no tokens."""


def _cut(exchange: Exchange, usage: Usage) -> Usage:
    """Cut an estimate to what the request can have used at most, which is what was reserved."""
    most = exchange.operation.bound(exchange.body, exchange.body_bytes, exchange.target.max_output_tokens)
    if not most.output_tokens:
        return usage
    return Usage(min(usage.input_tokens, most.input_tokens), min(usage.output_tokens, most.output_tokens))


def _shared(exchange: Exchange, ticket: Ticket, rule: Rule, used: Usage) -> Usage:
    """Find out who pays for a call that several listened to; returns what this caller is charged for."""
    exchange.rule, usage = ticket.bill(rule, used)
    if exchange.rule is Rule.CACHED:
        exchange.saved_pico_usd = charge.rated(used, exchange.target) or 0
    if usage is not used:
        exchange.usage = None  # another's row and the metrics have it
    return usage
