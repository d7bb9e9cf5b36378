"""Prometheus metrics of one gateway; labels are bounded: models that exist, kinds, statuses, rules."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from trilith_gateway import charge
from trilith_gateway.exchange import Exchange
from trilith_gateway.rule import Rule

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class _Series:
    """What is counted for one model and kind: plain numbers, so that counting costs next to nothing."""

    __slots__ = (
        "cascaded",
        "charged",
        "exceeded",
        "first_byte",
        "first_byte_sum",
        "input_tokens",
        "kind",
        "output_tokens",
        "overhead",
        "overhead_sum",
        "queued",
        "queued_sum",
        "rows",
        "rules",
        "saved",
        "seconds",
        "seconds_sum",
        "spared",
        "statuses",
        "verdicts",
    )

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.statuses: dict[int, int] = {}
        self.seconds = [0] * (len(_SECONDS) + 1)
        self.seconds_sum = 0.0
        self.first_byte = [0] * (len(_SECONDS) + 1)
        self.first_byte_sum = 0.0
        self.input_tokens = self.output_tokens = self.rows = 0
        self.rules: dict[Rule, int] = {}
        self.charged = self.saved = self.exceeded = 0
        self.verdicts: dict[str, int] = {}
        self.overhead = 0
        self.overhead_sum = 0.0
        self.cascaded: dict[str, int] = {}
        self.spared: dict[str, int] = {}
        self.queued = 0
        self.queued_sum = 0.0

    def add(self, other: dict[str, Any]) -> None:
        """Add what another worker counted."""
        for name, value in other.items():
            mine = getattr(self, name)
            if isinstance(value, dict):
                for key, count in value.items():
                    known = int(key) if name == "statuses" else Rule(key) if name == "rules" else key
                    mine[known] = mine.get(known, 0) + count
            elif isinstance(value, list):
                setattr(self, name, [a + b for a, b in zip(mine, value, strict=True)])
            elif name != "kind":
                setattr(self, name, mine + value)

    def plain(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return {name: getattr(self, name) for name in self.__slots__}


class Metrics:
    """Counters and histograms of one gateway; two gateways fit into one process."""

    def __init__(self, folder: Path | None = None, worker: str = "0") -> None:
        """Count for this process alone, or for a gateway whose workers exchange their counts in `folder`."""
        self._folder = folder
        self._worker = worker
        self._series: dict[str, _Series] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Exposition(self))
        self.open = 0
        """Requests under way."""
        self.budgets: dict[str, int] = {}
        """Requests by what a budget did and at which level, such as `degrade team`."""

    def count(self, exchange: Exchange, status: int) -> None:
        """Count one finished exchange."""
        release = exchange.release
        model = exchange.model if release is not None else "-"
        series = self._series.get(model)
        if series is None:
            series = self._series[model] = _Series(exchange.kind)
        series.statuses[status] = series.statuses.get(status, 0) + 1
        seconds = time.perf_counter() - exchange.clock
        series.seconds[bisect_left(_SECONDS, seconds)] += 1
        series.seconds_sum += seconds
        if exchange.first_byte_at is not None:
            first = exchange.first_byte_at - exchange.clock
            series.first_byte[bisect_left(_SECONDS, first)] += 1
            series.first_byte_sum += first
            if not exchange.stream:
                series.overhead += 1
                series.overhead_sum += seconds - exchange.waited_s - exchange.queued_s
        if exchange.queued_s:
            series.queued += 1
            series.queued_sum += exchange.queued_s
        rule = exchange.rule
        if rule is not None:
            series.rules[rule] = series.rules.get(rule, 0) + 1
        if (usage := exchange.usage) is not None and rule is not Rule.CACHED:
            series.input_tokens += usage.input_tokens
            series.output_tokens += usage.output_tokens
            series.rows += usage.rows
        series.charged += exchange.amount or 0
        if exchange.tries is not None:
            series.charged += charge.spent(exchange)
        series.saved += exchange.saved_pico_usd
        series.exceeded += exchange.exceeded
        if exchange.budget:
            event = exchange.budget.partition(":")[0]
            self.budgets[event] = self.budgets.get(event, 0) + 1
        if (step := exchange.cascaded) is not None:
            series.cascaded[step] = series.cascaded.get(step, 0) + 1
            series.spared[step] = series.spared.get(step, 0) + exchange.saved_pico_usd
        if exchange.protection is not None:
            verdict = exchange.protection.verdict.value
            series.verdicts[verdict] = series.verdicts.get(verdict, 0) + 1

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def share(self) -> None:
        """Write down what this worker has counted, for the one that is asked; call it every second or so."""
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            series = {model: series.plain() for model, series in self._series.items()}
            told = {"open": self.open, "budgets": self.budgets, "series": series}
            temporary = self._folder / f"{self._worker}.new"
            temporary.write_bytes(orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS))
            temporary.replace(self._folder / f"{self._worker}.json")

    def budget_events(self) -> dict[str, int]:
        """Return what all workers have counted in `budgets`."""
        found: dict[str, int] = {}
        if self._folder is None:
            return self.budgets
        for path in sorted(self._folder.glob("*.json")):
            for event, count in orjson.loads(path.read_bytes()).get("budgets", {}).items():
                found[event] = found.get(event, 0) + count
        return found

    def together(self) -> tuple[int, list[tuple[list[str], _Series]]]:
        """Return requests under way and, with its labels, what all workers have counted."""
        if self._folder is None:
            return self.open, [([model, s.kind], s) for model, s in sorted(self._series.items())]
        self.share()
        open_requests, found = 0, dict[str, _Series]()
        for path in sorted(self._folder.glob("*.json")):
            told = orjson.loads(path.read_bytes())
            open_requests += told["open"]
            for model, counts in told["series"].items():
                if model not in found:
                    found[model] = _Series(counts["kind"])
                found[model].add(counts)
        return open_requests, [([model, s.kind], s) for model, s in sorted(found.items())]


class _Exposition(Collector):
    """Turns the plain numbers into metric families when somebody asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "kind"]
        requests = CounterMetricFamily("trilith_requests", "Requests by outcome", labels=[*labels, "status"])
        seconds = HistogramMetricFamily("trilith_request_seconds", "Time to the answer's end", labels=labels)
        first = HistogramMetricFamily(
            "trilith_first_byte_seconds", "Time to the upstream's first byte", labels=labels
        )
        overhead = CounterMetricFamily(
            "trilith_overhead_seconds", "Time within the gateway, unstreamed answers", labels=labels
        )
        tokens = CounterMetricFamily("trilith_tokens", "Tokens as reported", labels=[*labels, "direction"])
        rows = CounterMetricFamily("trilith_rows", "Rows scored", labels=labels)
        charges = CounterMetricFamily(
            "trilith_charges", "Ledger rows by pricing rule", labels=[*labels, "rule"]
        )
        charged = CounterMetricFamily(
            "trilith_charged_usd", "Charged, rounded; the ledger is exact", labels=labels
        )
        saved = CounterMetricFamily(
            "trilith_saved_usd", "What cached answers had cost and cascades spared, rounded", labels=labels
        )
        cascaded = CounterMetricFamily(
            "trilith_cascade", "Requests that a step of a cascade answered", labels=[*labels, "step"]
        )
        spared = CounterMetricFamily(
            "trilith_cascade_saved_usd", "What those steps spared, rounded", labels=[*labels, "step"]
        )
        exceeded = CounterMetricFamily(
            "trilith_reservation_exceeded", "Requests that cost more than was reserved", labels=labels
        )
        queued = CounterMetricFamily(
            "trilith_queued", "Requests that waited for a place at the model", labels=labels
        )
        queue_seconds = CounterMetricFamily("trilith_queue_seconds", "Their waiting time", labels=labels)
        guardrail = CounterMetricFamily(
            "trilith_guardrail", "Requests by verdict", labels=[*labels, "verdict"]
        )
        open_requests, all_series = self._metrics.together()
        for names, series in all_series:
            for status, count in sorted(series.statuses.items()):
                requests.add_metric([*names, str(status)], count)
            seconds.add_metric(names, _buckets(series.seconds), series.seconds_sum)
            if any(series.first_byte):
                first.add_metric(names, _buckets(series.first_byte), series.first_byte_sum)
                overhead.add_metric(names, series.overhead_sum)
            if series.queued:
                queued.add_metric(names, series.queued)
                queue_seconds.add_metric(names, series.queued_sum)
            tokens.add_metric([*names, "input"], series.input_tokens)
            tokens.add_metric([*names, "output"], series.output_tokens)
            rows.add_metric(names, series.rows)
            for rule, count in sorted(series.rules.items()):
                charges.add_metric([*names, rule.value], count)
            charged.add_metric(names, series.charged / 1e12)
            saved.add_metric(names, series.saved / 1e12)
            exceeded.add_metric(names, series.exceeded)
            for verdict, count in sorted(series.verdicts.items()):
                guardrail.add_metric([*names, verdict], count)
            for step, count in sorted(series.cascaded.items()):
                cascaded.add_metric([*names, step], count)
                spared.add_metric([*names, step], series.spared[step] / 1e12)
        yield from (queued, queue_seconds)
        yield from (requests, seconds, first, overhead, tokens, rows, charges, charged, saved, guardrail)
        budgets = CounterMetricFamily(
            "trilith_budget", "Requests by what a budget did", labels=["event", "level"]
        )
        for event, count in sorted(self._metrics.budget_events().items()):
            budgets.add_metric(event.split(), count)
        yield budgets
        yield from (cascaded, spared, exceeded)
        yield GaugeMetricFamily("trilith_open_requests", "Requests under way", value=open_requests)


def _buckets(counts: list[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, _SECONDS), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found
