"""Writes stored spans as OTLP JSON, one line per trace, with what people said about the answers as events.

The form is that of the OpenTelemetry collector's file exporter; feedback is the GenAI conventions' event
`gen_ai.evaluation.result`. What reads spans elsewhere reads these too.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from trilith.telemetry import SCOPE, names
from trilith_gateway.store.seam import Connection

FEEDBACK = "feedback"
"""Name of the evaluation that a person's word is."""


def lines(path: Path, feedback: Mapping[str, list[dict[str, Any]]], *, since_ns: int = 0) -> Iterator[str]:
    """Return stored spans, trace by trace.

    Args:
        path: The spans' database.
        feedback: By request, as `said` returns it.
        since_ns: Leave out traces that began before (nanoseconds since 1970).
    """
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(
            "select spans.* from spans join (select trace_id as id, min(started_ns) as began from spans "
            "group by trace_id) on id = spans.trace_id where began >= ? order by began, id, started_ns",
            (since_ns,),
        )
        for _, spans in itertools.groupby(rows, key=lambda row: row["trace_id"]):
            yield json.dumps(_trace(list(spans), feedback), ensure_ascii=False)


def said(connection: Connection, *, comments: bool) -> dict[str, list[dict[str, Any]]]:
    """Return what people said, by request; their own words only where `comments` is set."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in connection.execute("select request_id, at, score, label, comment from feedback order by at"):
        opinion = {"at": row["at"], "score": row["score"], "label": row["label"]}
        if comments:
            opinion["comment"] = row["comment"]
        found.setdefault(row["request_id"], []).append(opinion)
    return found


def _trace(rows: Iterable[sqlite3.Row], feedback: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    by_service: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_service.setdefault(row["service"], []).append(_span(row, feedback))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": service})},
                "scopeSpans": [{"scope": {"name": SCOPE}, "spans": spans}],
            }
            for service, spans in by_service.items()
        ]
    }


def _span(row: sqlite3.Row, feedback: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": row["trace_id"],
        "spanId": row["span_id"],
        "name": row["name"],
        "startTimeUnixNano": str(row["started_ns"]),
        "endTimeUnixNano": str(row["ended_ns"]),
        "attributes": _attributes(json.loads(row["attributes"])),
        "status": {"code": 2} if row["failed"] else {},
    }
    if row["parent_id"]:
        made["parentSpanId"] = row["parent_id"]
    if opinions := feedback.get(row["request_id"] or ""):
        made["events"] = [_event(opinion) for opinion in opinions]
    return made


def _event(opinion: Mapping[str, Any]) -> dict[str, Any]:
    told = {
        names.EVALUATION_NAME: FEEDBACK,
        names.EVALUATION_SCORE: opinion["score"],
        names.EVALUATION_LABEL: opinion["label"],
        names.EVALUATION_EXPLANATION: opinion.get("comment"),
    }
    return {
        "name": names.EVALUATION_EVENT,
        "timeUnixNano": str(int(opinion["at"] * 1e9)),
        "attributes": _attributes({name: value for name, value in told.items() if value is not None}),
    }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits do not fit into JSON's numbers
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(inner) for inner in value]}}
    return {"stringValue": str(value)}
