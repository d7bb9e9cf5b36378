"""Tracing: names, spans, and the decorator for an app's own functions."""

from trilith.telemetry.spans import SCOPE, fail, span, traced, tracer

__all__ = ["SCOPE", "fail", "span", "traced", "tracer"]
