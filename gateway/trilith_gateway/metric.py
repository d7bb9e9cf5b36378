"""Prometheus metrics of one gateway; labels are bounded: models that exist, kinds, statuses, rules."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from trilith_gateway.exchange import Exchange, Rule

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters and histograms in a registry of their own, so that two gateways fit into one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("model", "kind")
        self._requests = Counter(
            "trilith_requests_total", "Requests by outcome", (*labels, "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "trilith_request_seconds",
            "Time to the answer's end",
            labels,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_byte = Histogram(
            "trilith_first_byte_seconds",
            "Time to the upstream's first byte",
            labels,
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "trilith_tokens_total", "Tokens as reported", (*labels, "direction"), registry=self._registry
        )
        self._rows = Counter("trilith_rows_total", "Rows scored", labels, registry=self._registry)
        self._charges = Counter(
            "trilith_charges_total", "Ledger rows by pricing rule", (*labels, "rule"), registry=self._registry
        )
        self._charged = Counter(
            "trilith_charged_usd_total",
            "Charged, rounded; the ledger is exact",
            labels,
            registry=self._registry,
        )
        self._guardrail = Counter(
            "trilith_guardrail_total", "Requests by verdict", (*labels, "verdict"), registry=self._registry
        )
        self.open_requests = Gauge("trilith_open_requests", "Requests under way", registry=self._registry)

    def count(self, exchange: Exchange, status: int) -> None:
        """Count one finished exchange."""
        labels = (exchange.model if exchange.release else "-", exchange.kind)
        self._requests.labels(*labels, str(status)).inc()
        self._seconds.labels(*labels).observe(time.perf_counter() - exchange.clock)
        if exchange.first_byte_at is not None:
            self._first_byte.labels(*labels).observe(exchange.first_byte_at - exchange.clock)
        if (usage := exchange.usage) is not None and exchange.rule is not Rule.CACHED:
            self._tokens.labels(*labels, "input").inc(usage.input_tokens)
            self._tokens.labels(*labels, "output").inc(usage.output_tokens)
            self._rows.labels(*labels).inc(usage.rows)
        if exchange.rule is not None:
            self._charges.labels(*labels, exchange.rule.value).inc()
        if exchange.amount:
            self._charged.labels(*labels).inc(exchange.amount / 1e12)
        if exchange.protection is not None:
            self._guardrail.labels(*labels, exchange.protection.verdict.value).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
