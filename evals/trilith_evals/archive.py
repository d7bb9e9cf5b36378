"""Reads a whole run back from the JSON that `--json` wrote, so that it can be shown again.

What the JSON leaves out stays out: the dataset's further columns, quotes of citations, and everything
of the cases in a run that was written without content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trilith.errors import DataError
from trilith.types import Citation, Usage
from trilith_evals.case import Case, Output, ToolCall
from trilith_evals.contest import Line
from trilith_evals.figure import Figure
from trilith_evals.gate import Check, Threshold
from trilith_evals.recorded import read_json
from trilith_evals.repeat import Repeated
from trilith_evals.report import Failure, JudgeMark, Report, Row, Spend, SuiteReport
from trilith_evals.score import Score


def read(path: Path) -> Report:
    """Return the run that a file holds.

    Raises:
        DataError: the file cannot be read, or is no report.
    """
    return report(read_json(path), str(path))


def report(told: Any, place: str = "the report") -> Report:
    """Return the run that `Report.to_json` told of.

    Args:
        told: Plain JSON values.
        place: What an error calls it.

    Raises:
        DataError: it is no report; only the kind of the fault is said, as the report may hold content.
    """
    try:
        suites = tuple(_suite(suite) for suite in told["suites"])
        content = bool(told.get("content", any(row.case.input for s in suites for row in s.rows)))
        started = datetime.fromisoformat(told["started"])
        return Report(suites, started, float(told["duration_s"]), content=content)
    except KeyError as error:
        raise DataError(f"{place} is no report of a run: it lacks {error}") from error
    except (TypeError, AttributeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise DataError(
            f"{place} is no report of a run ({type(error).__name__}); "
            "`trilith eval run --json PATH` writes one"
        ) from None


def _suite(told: Mapping[str, Any]) -> SuiteReport:
    given = dict(told)
    for key in ("outcome", "usage"):  # both are made anew from what they were made of
        given.pop(key, None)
    for key, kind in _PARTS.items():
        given[key] = kind.validate_python(given.get(key) or ())
    for key, one in _MAYBE.items():
        given[key] = one.validate_python(given.get(key))
    given["rows"] = tuple(_row(row) for row in given["rows"])
    given["releases"] = tuple(given.get("releases", ()))
    known = {name: value for name, value in given.items() if name in SuiteReport.__dataclass_fields__}
    return SuiteReport(**known)


_PARTS: Mapping[str, TypeAdapter[Any]] = {
    "thresholds": TypeAdapter(tuple[Threshold, ...]),
    "figures": TypeAdapter(tuple[Figure, ...]),
    "slices": TypeAdapter(tuple[Figure, ...]),
    "checks": TypeAdapter(tuple[Check, ...]),
    "lines": TypeAdapter(tuple[Line, ...]),
    "judges": TypeAdapter(tuple[JudgeMark, ...]),
    "repeated": TypeAdapter(tuple[Repeated, ...]),
}
_MAYBE: Mapping[str, TypeAdapter[Any]] = {
    "spend": TypeAdapter(Spend | None),
    "stopped": TypeAdapter(Failure | None),
}
_USAGE: TypeAdapter[Usage] = TypeAdapter(Usage)
_CALLS: TypeAdapter[tuple[ToolCall, ...]] = TypeAdapter(tuple[ToolCall, ...])
_SCORES: TypeAdapter[dict[str, Score]] = TypeAdapter(dict[str, Score])


def _row(told: Mapping[str, Any]) -> Row:
    case = Case(
        id=str(told["id"]),
        input=told.get("input"),
        expected=told.get("expected"),
        cluster=told.get("cluster"),
        line=told.get("line"),
        tags=dict(told.get("tags", {})),
    )
    failure = _MAYBE["stopped"].validate_python(told.get("failure"))
    output = None if failure is not None else _output(told)
    return Row(
        case,
        int(told["repeat"]),
        output,
        failure,
        _SCORES.validate_python(told["scores"]),
        {metric: (truth, said) for metric, (truth, said) in told.get("pairs", {}).items()},
        str(told.get("print", "")),
    )


def _usage(told: Mapping[str, Any]) -> Usage:
    unknown = sorted(set(told) - {field.name for field in fields(Usage)})
    if unknown:  # pydantic would leave it out, and a use that nobody knows would be none
        raise ValueError(f"usage has the unknown key {unknown[0][:40]!r}")
    return _USAGE.validate_python(told)


def _output(told: Mapping[str, Any]) -> Output:
    said = told.get("output", "")
    values = said if isinstance(said, dict) else {}
    usage = told.get("usage")
    return Output(
        text=str(next(iter(values.values()), "")) if values else str(said),
        values=values,
        citations=tuple(_citation(n, at) for n, at in enumerate(told.get("citations", ()), start=1)),
        tool_calls=_CALLS.validate_python(told.get("tool_calls", ())),
        usage=_usage(usage) if usage else None,
        latency_s=float(told.get("latency_s", 0.0)),
        request_id=told.get("request_id"),
        cost_pico_usd=told.get("cost_pico_usd"),
        release=str(told.get("release", "")),
        cached=bool(told.get("cached", False)),
    )


def _citation(number: int, told: str) -> Citation:
    path, _, span = told.rpartition(":")
    start, _, end = span.partition("-")
    return Citation(number=number, document_id="", path=path, start=int(start), end=int(end), quote="")
