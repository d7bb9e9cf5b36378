"""Holds every span that the test run makes to its shape."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from trilith.telemetry import SCOPE, names


class ShapeWatch(SpanProcessor):
    """Holds every finished span of Trilith's to its shape."""

    def __init__(self) -> None:
        self.seen = 0
        self.faults: list[str] = []

    def on_end(self, span: ReadableSpan) -> None:
        if span.instrumentation_scope is not None and span.instrumentation_scope.name == SCOPE:
            self.seen += 1
            self.faults += names.faults(span.name, dict(span.attributes or {}))


def stored_faults(path: Path) -> list[str]:
    """Hold every span that a platform stored to its shape."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            rows = connection.execute("select name, attributes from spans").fetchall()
        except sqlite3.Error as error:
            return [] if "no such table" in str(error) else [f"{path}: {error}"]
    return [fault for name, attributes in rows for fault in names.faults(name, json.loads(attributes))]
