"""The process's tracing: an OpenTelemetry SDK provider that keeps spans in SQLite and may send them on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from trilith.settings.server import TelemetrySettings
from trilith.telemetry import names

_SCHEMA = """
create table if not exists spans (
    span_id text primary key, trace_id text not null, parent_id text, name text not null,
    service text not null, started_ns integer not null, ended_ns integer not null,
    failed integer not null, request_id text,
    attributes text not null
) strict;
create index if not exists spans_by_trace on spans (trace_id);
create index if not exists spans_by_request on spans (request_id) where request_id is not null;
"""

_SPAN_DELAY_MS = 500


def database(home: Path) -> Path:
    """Return where the spans of the platform in `home` are."""
    return home / "traces.db"


def wanted(settings: TelemetrySettings) -> bool:
    """Say whether spans go anywhere; if not, none are made."""
    return settings.store_spans or settings.otlp_endpoint is not None


def provider(settings: TelemetrySettings, home: Path, *, service: str = "trilith-gateway") -> TracerProvider:
    """Make a tracer provider for one process; whoever asked for it shuts it down."""
    made = TracerProvider(
        resource=Resource({"service.name": service, "service.version": version("trilith")}),
        shutdown_on_exit=False,
    )
    if settings.store_spans:
        made.add_span_processor(
            BatchSpanProcessor(SqliteSpanExporter(database(home)), schedule_delay_millis=_SPAN_DELAY_MS)
        )
    if settings.otlp_endpoint is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
    return made


class SqliteSpanExporter(SpanExporter):
    """Keeps finished spans for `trilith traces`; several processes may share one file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._connect() as connection:
            connection.executescript(_SCHEMA)
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10)
        connection.execute("pragma journal_mode = wal")
        connection.execute(
            "pragma synchronous = off"
        )  # a trace may be lost with the machine; a charge may not
        return connection

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Store a batch."""
        try:
            with self._connect() as connection:
                connection.executemany(
                    "insert or replace into spans values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, spans)
                )
            connection.close()
        except sqlite3.Error:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS


def _row(span: ReadableSpan) -> tuple[object, ...]:
    attributes = dict(span.attributes or {})
    context = span.get_span_context()
    return (
        f"{context.span_id:016x}" if context else "",
        f"{context.trace_id:032x}" if context else "",
        f"{span.parent.span_id:016x}" if span.parent else None,
        span.name,
        str(span.resource.attributes.get("service.name", "")),
        span.start_time or 0,
        span.end_time or 0,
        int(not span.status.is_ok and names.ERROR_TYPE in attributes),
        attributes.get(names.REQUEST_ID),
        json.dumps(attributes, default=list, sort_keys=True),
    )
