"""Stage 3, protect in: personal data in the request is masked, or the request refused, as the policy says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from opentelemetry.trace import Span as TraceSpan
from opentelemetry.trace import Tracer

import trilith_governance as governance
from trilith.errors import APIStatusError, PermissionDeniedError
from trilith.telemetry import names, span
from trilith.types import Kind, Verdict
from trilith_gateway.exchange import Exchange


class ProtectIn:
    """Keeps personal data away from models that need not see it."""

    def __init__(self, protector: governance.Protector, tracer: Tracer) -> None:
        self._protector = protector
        self._tracer = tracer

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set `exchange.protection` and replace texts in `exchange.body`.

        A RAG request keeps its text: retrieval runs in this process and needs the words. Its upstream masks
        what goes on to the language model, by the same protection (`Call.shield`); looking at the question
        here already gives the refusal and the audit entry.
        """
        policy = exchange.target.policy
        protection = None if policy is None else self._protector.protect(policy)
        if protection is None:
            return None
        exchange.protection = protection
        return self._mask(exchange, protection)

    async def _mask(self, exchange: Exchange, protection: governance.Protection) -> None:
        attributes = {
            names.GUARDRAIL_NAME: "pii",
            names.GUARDRAIL_STAGE: "input",
            names.GUARDRAIL_VERDICT: "allow",
        }
        if exchange.trace is not None:
            exchange.trace.enter()
        with span("guardrail", "pii", attributes, using=self._tracer) as current:
            try:
                body = await asyncio.to_thread(exchange.operation.mask, exchange.body, protection)
            except PermissionDeniedError:
                _describe(current, protection, Verdict.BLOCK)
                raise
            except APIStatusError:
                _describe(current, protection, Verdict.ERROR)
                raise
            _describe(current, protection, protection.verdict)
        if exchange.target.kind is not Kind.RAG:
            # Also where nothing was found: what goes on is what was looked at, not what another parser may
            # read in the same bytes (a name that stands twice).
            exchange.body, exchange.masked = body, True
        elif exchange.trace is not None and exchange.trace.content is not None:
            exchange.trace.content.masked = body


def _describe(current: TraceSpan, protection: governance.Protection, verdict: Verdict) -> None:
    current.set_attributes(
        {
            names.GUARDRAIL_VERDICT: verdict.value,
            names.GUARDRAIL_ENTITY_TYPES: sorted(protection.counts),
            names.GUARDRAIL_ENTITY_COUNT: sum(protection.counts.values()),
        }
    )
