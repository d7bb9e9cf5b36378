"""Outputs as plain JSON and back, for the journal and the cache."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from trilith.types import NO_PARTICULARS, Citation, Particulars, Usage
from trilith_evals.case import Output, ToolCall

_APART = frozenset({"values", "citations", "usage", "tool_calls", "cached"})
_PLAIN = tuple(f.name for f in fields(Output) if f.name not in _APART)


def output_json(output: Output) -> dict[str, Any]:
    """Return an output as JSON."""
    told: dict[str, Any] = {name: getattr(output, name) for name in _PLAIN}
    if output.values:
        told["values"] = dict(output.values)
    if output.citations:
        told["citations"] = [asdict(citation) for citation in output.citations]
    if output.tool_calls:
        told["tool_calls"] = [asdict(call) for call in output.tool_calls]
    if output.usage:
        told["usage"] = {name: getattr(output.usage, name) for name in Usage.__slots__}
        particulars = output.usage.particulars
        told["usage"]["particulars"] = None if particulars == NO_PARTICULARS else asdict(particulars)
    return told


def output_of(told: Any) -> Output:
    """Return the output that `output_json` wrote."""
    usage = told.get("usage")
    if usage:
        special = usage["particulars"]
        usage = Usage(**{**usage, "particulars": Particulars(**special) if special else NO_PARTICULARS})
    return Output(
        **{name: told[name] for name in _PLAIN},
        values=told.get("values", {}),
        citations=tuple(Citation(**citation) for citation in told.get("citations", ())),
        tool_calls=tuple(ToolCall(**call) for call in told.get("tool_calls", ())),
        usage=usage,
    )
