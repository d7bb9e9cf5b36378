"""Stage 8, settle: usage -> charge, by a named rule; the reservation is replaced by it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import replace

from trilith.money import Meter, format_usd
from trilith.seams import Tried
from trilith.types import Usage
from trilith_gateway import charge, reported
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
        held = exchange.reserved is not None
        reserved, exchange.reserved = exchange.reserved or 0, None
        written = unpriced = 0
        try:
            for tried in exchange.tries or ():
                self._append(charge.row(exchange, at, tried.usage, estimated=tried.estimated, tried=tried))
                written += tried.amount or 0 if tried.by_caller else 0
            self._append(charge.row(exchange, at, usage, estimated=estimated))
            written += exchange.amount or 0
            if exchange.amount is None or exchange.tries is not None:
                unpriced = _unpriced(exchange, reserved, written)
            if exchange.amount is None:
                self._alarm(exchange, usage, at)
        except OSError as error:
            raise store_unavailable() from error
        finally:  # what could not be written is in no budget either: they agree with the ledger
            if not exchange.paid:
                total = written + unpriced
                self._budgets.settle(exchange.caller, reserved, total, at, unpriced=unpriced)
                if held and total > reserved:
                    self._exceeded(exchange, total, reserved)

    def _meter(self, model: str) -> Meter:
        found = self._meters.get(model)
        if found is None:
            found = self._meters[model] = Meter()
        return found

    def _exceeded(self, exchange: Exchange, total: int, reserved: int) -> None:
        """Tell the log that a call cost more than was held for it; a metric counts each one."""
        exchange.exceeded = True
        model, now = exchange.target.model, time.time()
        if now - self._told.get(f"reserved {model}", 0.0) < _ALARM_S:
            return
        self._told[f"reserved {model}"] = now
        _log.warning(
            "a call of %s cost %s USD, and %s were reserved for it: a budget may be overshot by the rest. "
            "Raise the model's reference_tokens or max_output_tokens",
            model,
            format_usd(total),
            format_usd(reserved),
        )

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


def _unpriced(exchange: Exchange, reserved: int, written: int) -> int:
    """Return what counts in budgets beside what the ledger tells (pico-USD).

    What is used and cannot be priced counts as much as was reserved for it, lest it be free.
    """
    standing = charge.owed(exchange) - charge.spent(exchange)
    if exchange.amount is None or charge.owes_unknown(exchange):
        return max(standing, reserved - written)
    return standing


def _rule(exchange: Exchange) -> tuple[Rule, Usage, bool]:
    """Return the rule, the usage that it charges, and whether that is an estimate."""
    if exchange.recalled:
        return Rule.CACHED, charge.NOTHING, False
    answered = exchange.answer is not None and exchange.answer.status < 400
    rule = exchange.rule
    if rule is Rule.ABORTED or rule is Rule.BROKEN:  # set on the way
        if exchange.usage is not None:
            usage = _so_far(exchange, exchange.usage)
            return rule, usage, usage is not exchange.usage
        if exchange.operation.counts is not None and _begun(exchange):
            return rule, exchange.operation.counts(exchange.body, b""), False  # as if it were whole
        if exchange.tally is None or not (tokens := exchange.tally.tokens()):
            return rule, charge.NOTHING, False
        return rule, charge.cut(exchange, Usage(-(-exchange.body_bytes // 3), tokens)), True
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
        sent, quiet = exchange.body_bytes, exchange.api in _WRITES_NOTHING
        if quiet:  # a query is read with every document
            sent = exchange.operation.bound(exchange.body, sent, 0).input_tokens
        used = estimate(sent, 0 if quiet else received)
    return Rule.ESTIMATE, charge.cut(exchange, used), True


def _so_far(exchange: Exchange, told: Usage) -> Usage:
    """Return the usage of a stream that ended early; Anthropic's tells at first what was read, no more."""
    if exchange.tally is None or exchange.operation.together is not reported.larger:
        return told
    said = charge.cut(exchange, Usage(output_tokens=exchange.tally.tokens())).output_tokens
    return replace(told, output_tokens=said) if said > told.output_tokens else told


def _begun(exchange: Exchange) -> bool:
    """Say whether the upstream had begun to answer what then ended early."""
    if exchange.rule is Rule.BROKEN:
        return True
    return exchange.reply is not None and exchange.reply.status < 400


_WRITES_NOTHING = frozenset({Api.EMBEDDING, Api.RERANK, Api.MODERATION})
"""Operations whose answers are no tokens."""


def _shared(exchange: Exchange, ticket: Ticket, rule: Rule, used: Usage) -> Usage:
    """Find out who pays for a call that several listened to; returns what this caller is charged for."""
    exchange.rule, usage = ticket.bill(rule, used)
    if exchange.rule is Rule.CACHED:
        exchange.saved_pico_usd = charge.rated(used, exchange.target) or 0
    if usage is not used:
        exchange.usage = None  # another's row and the metrics have it
    return usage
