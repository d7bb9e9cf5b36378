"""Stage 9, record: audit, metrics, and the request's span. Types and counts only, never a caller's text."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping

from opentelemetry.util.types import AttributeValue

from trilith.telemetry import names
from trilith.types import Verdict
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange, Rule
from trilith_gateway.metric import Metrics
from trilith_gateway.store.journal import Record as Fact


class Record:
    """Writes down what happened."""

    def __init__(self, append: Callable[[Fact], None], metrics: Metrics) -> None:
        self._append = append
        self._metrics = metrics

    def __call__(self, exchange: Exchange) -> None:
        """Write the audit entry where governance did something, count the request, complete its span."""
        protection = exchange.protection
        if protection is not None and protection.verdict is not Verdict.ALLOW:
            self._append(_audit(exchange, protection.verdict, protection.counts))
        self._metrics.count(exchange, status(exchange))
        if exchange.span is not None:
            exchange.span.update_name(f"{exchange.api} {exchange.model}")
            exchange.span.set_attributes(_attributes(exchange))


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


def _attributes(exchange: Exchange) -> dict[str, AttributeValue]:
    named = names.MODEL_NAME if exchange.api is Api.PREDICT else names.REQUEST_MODEL
    found: dict[str, AttributeValue] = {
        named: exchange.model,
        names.REQUEST_ID: exchange.request_id,
        names.HTTP_STATUS: status(exchange),
    }
    if exchange.key is not None:
        found |= {names.TENANT: exchange.key.team, names.KEY_ID: exchange.key.id}
    if (release := exchange.release) is not None:
        found |= {
            names.RELEASE_NAME: release.model,
            names.RELEASE_VERSION: release.version,
            names.RELEASE_KIND: release.kind.value,
        }
    if exchange.rule is not None:
        found[names.COST_RULE] = exchange.rule.value
    if exchange.amount is not None:
        found[names.COST_PICO_USD] = exchange.amount
    if exchange.api is Api.PREDICT:
        return found | {names.BATCH_ROWS: exchange.usage.rows if exchange.usage else 0}
    if (usage := exchange.usage) is not None:
        found |= {names.INPUT_TOKENS: usage.input_tokens, names.OUTPUT_TOKENS: usage.output_tokens}
        if usage.cached_input_tokens:
            found[names.CACHE_READ_TOKENS] = usage.cached_input_tokens
    if exchange.api is Api.EMBEDDING:
        return found
    if exchange.response_id:
        found[names.RESPONSE_ID] = exchange.response_id
    if exchange.finish_reasons:
        found[names.FINISH_REASONS] = list(exchange.finish_reasons)
    if exchange.stream and exchange.first_byte_at is not None:
        found[names.TIME_TO_FIRST_CHUNK] = exchange.first_byte_at - exchange.clock
    return found
