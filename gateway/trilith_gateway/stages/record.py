"""Stage 9, record: audit and metrics. Types and counts only, never a caller's text."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from trilith.types import Verdict
from trilith_gateway.exchange import Exchange
from trilith_gateway.metric import Metrics
from trilith_gateway.rule import Rule
from trilith_gateway.store.journal import Record as Fact


class Record:
    """Writes down what happened."""

    def __init__(self, append: Callable[[Fact], None], metrics: Metrics) -> None:
        self._append = append
        self._metrics = metrics

    def __call__(self, exchange: Exchange) -> None:
        """Write the audit entry where governance did something, and count the request."""
        protection = exchange.protection
        if protection is not None and protection.verdict is not Verdict.ALLOW:
            self._append(_audit(exchange, protection.verdict, protection.counts))
        self._metrics.count(exchange, status(exchange))


def status(exchange: Exchange) -> int:
    """Return the status that the caller got; 499 when there was no caller any more."""
    if exchange.rule is Rule.ABORTED:
        return 499
    return exchange.answer.status if exchange.answer else 500


def _audit(exchange: Exchange, verdict: Verdict, counts: Mapping[str, int]) -> Fact:
    return {
        "t": "audit",
        "id": secrets.token_hex(12),
        "at": time.time(),
        "event": f"pii.{verdict.value}",
        "detail": {
            "request_id": exchange.request_id,
            "key_id": exchange.caller.id,
            "team": exchange.caller.team,
            "model": exchange.model,
            "policy": exchange.target.policy,
            "entities": dict(sorted(counts.items())),
        },
    }
