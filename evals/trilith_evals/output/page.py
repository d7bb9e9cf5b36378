"""One HTML page that works offline: figures with intervals, checks, and every case, worst first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilith.extras import need
from trilith.types import Json
from trilith_evals.atomic import write
from trilith_evals.comparison import Comparison
from trilith_evals.contest import Line
from trilith_evals.figure import Figure, brief
from trilith_evals.gate import Outcome, Threshold
from trilith_evals.output.telling import flaky, notes, opinion, rests_on, spent
from trilith_evals.report import Report, Row, SuiteReport
from trilith_evals.score import Score

_OPEN_ROWS = 10
"""Rows that are shown unfolded."""
_MOST_ROWS = 500
"""Rows on the page at most; the JSON output has them all."""
_LONGEST_TEXT = 2000
_GIST = 120
"""Characters of a case's input on its folded line."""

_STYLES = {
    Outcome.PASS: ("pass", "✓", "Passed"),
    Outcome.FAIL: ("fail", "✗", "Failed"),
    Outcome.NO_EVIDENCE: ("unclear", "?", "No evidence"),
    Outcome.COULD_NOT_RUN: ("unrun", "!", "Could not run"),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a figure, its interval and its thresholds lie on a line, in percent of its width."""

    value: float
    low: float | None
    width: float | None
    ticks: tuple[float, ...]
    ends: tuple[str, str]
    zero: float | None = None
    """Where nought is, for a difference."""


def page(report: Report) -> str:
    """Return the report as one HTML document without outside references."""
    template = templates().get_template("page.html.j2")
    rendered: str = template.render(
        report=report,
        suites=[_suite(suite, content=report.content) for suite in report.suites],
        style=_STYLES[report.outcome],
        passed=sum(suite.outcome is Outcome.PASS for suite in report.suites),
    )
    return rendered


def templates() -> Any:
    """Return the environment in which pages are made: everything is escaped, a missing name is an error."""
    jinja2 = need("jinja2", extra="evals")
    return jinja2.Environment(
        loader=jinja2.PackageLoader("trilith_evals", "output"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file."""
    write(path, page(report))


def _suite(suite: SuiteReport, *, content: bool) -> dict[str, Any]:
    columns = _columns(suite)
    rows = [_row(suite, row, columns, content=content) for row in suite.rows[:_MOST_ROWS]]
    return {
        "told": suite,
        "style": _STYLES[suite.outcome],
        "stopped": suite.stopped.told(content=content) if suite.stopped else "",
        "checks": [
            {"told": check, "style": _STYLES[check.outcome]}
            for check in sorted(suite.checks, key=lambda check: check.outcome is Outcome.PASS)
        ],
        "figures": [{"told": f, "scale": scale(f, suite.thresholds)} for f in suite.figures],
        "rests": rests_on(suite),
        "uncalibrated": [opinion(judge) for judge in suite.judges if not judge.calibrated],
        "flaky": flaky(suite),
        "notes": notes(suite),
        "spend": spent(suite.spend) if suite.spend else "",
        "slices": [{"told": f, "scale": scale(f, ())} for f in suite.slices],
        "lines": [line_told(line) for line in suite.lines],
        "columns": list(columns),
        "open_rows": rows[:_OPEN_ROWS],
        "folded_rows": rows[_OPEN_ROWS:],
        "left_out": max(0, len(suite.rows) - _MOST_ROWS),
        "parameters": ", ".join(f"{key} {text_of(value)}" for key, value in suite.parameters.items()),
    }


def _columns(suite: SuiteReport) -> dict[str, str]:
    """Return the heading and the metric of every column of scores.

    Figures over the whole suite have no value per row. Their losses are shown, and once only where they
    are the same: MAE, RMSE and R2 all rest on the absolute error.
    """
    columns = {}
    shown: set[tuple[float | None, ...]] = set()
    for figure in suite.figures:
        if not figure.over_suite:
            columns[figure.metric] = figure.metric
            continue
        losses = tuple(row.scores[figure.metric].value for row in suite.rows)
        if losses not in shown:
            columns["error" if not shown else f"error ({figure.metric})"] = figure.metric
            shown.add(losses)
    return columns


def _row(suite: SuiteReport, row: Row, columns: Mapping[str, str], *, content: bool) -> dict[str, Any]:
    return {
        "id": row.case.id if suite.repeats == 1 else f"{row.case.id} · {row.repeat + 1}",
        "gist": text_of(row.case.input)[:_GIST] if content else "",
        "about": _about(row),
        "input": _cut(text_of(row.case.input)) if content else "",
        "expected": _cut(text_of(row.case.expected)) if content else "",
        "output": _cut(said(row)) if content else "",
        "citations": [_cited(row, number) for number in range(len(row.output.citations))]
        if content and row.output
        else [],
        "failure": row.failure.told(content=content) if row.failure else "",
        "scores": [_cell(row.scores[metric]) for metric in columns.values()],
    }


def line_told(line: Line) -> dict[str, Any]:
    """Return what a page shows of one comparison."""
    return {
        "told": line,
        "style": _STYLES[line.check.outcome],
        "scale": around_zero(line.comparison),
    }


def _about(row: Row) -> str:
    """Say in one line where a row comes from and how long it took."""
    parts = [f"{key}={value}" for key, value in row.case.tags.items()]
    if row.case.line is not None:
        parts.append(f"line {row.case.line}")
    if row.case.cluster is not None:
        parts.append(f"from {row.case.cluster}")
    if row.output:
        parts.append("kept from earlier" if row.output.cached else f"{row.output.latency_s:.2f} s")
        if row.output.request_id:
            parts.append(f"request {row.output.request_id}")
    return " · ".join(parts)


def said(row: Row) -> str:
    """Return an answer as one text; empty where there is none."""
    if row.output is None:
        return ""
    return text_of(dict(row.output.values)) if row.output.values else row.output.text


def _cited(row: Row, number: int) -> str:
    assert row.output is not None  # only rows with an output have citations
    citation = row.output.citations[number]
    return f"{citation.path}:{citation.start}-{citation.end}"


def _cell(score: Score) -> dict[str, str]:
    if score.value is not None:
        text = f"{score.value:g}" if score.value in (0, 1) else brief(score.value)
        return {"text": text, "style": "scored", "why": ""}
    return {"text": score.state.value, "style": score.state.value, "why": score.reason}


def text_of(value: Json) -> str:
    """Return an input, an answer or an expectation as one text."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " / ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_number(inner)}" for key, inner in value.items())
    return _number(value)


def _number(value: Json) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


def around_zero(found: Comparison) -> Scale:
    """Place a difference and its interval on a line with nought in its middle."""
    difference = found.difference
    known = [abs(end) for end in (difference.value, difference.low, difference.high) if end is not None]
    reach = max(known) * 1.15 or 1.0

    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    low, high = difference.low, difference.high
    whole = low is not None and high is not None
    return Scale(
        value=place(difference.value),
        low=place(low) if whole and low is not None else None,
        width=round(place(high) - place(low), 2) if low is not None and high is not None else None,
        ticks=(),
        ends=(f"−{brief(reach)}", f"+{brief(reach)}"),
        zero=50.0,
    )


def scale(figure: Figure, thresholds: Sequence[Threshold]) -> Scale | None:
    """Place a figure on a line from 0 to 1 where it fits there, else on one that holds all of it."""
    estimate = figure.estimate
    if estimate is None:
        return None
    bounds = [b for t in thresholds if t.metric == figure.metric for b in (t.min, t.max) if b is not None]
    ends = [end for end in (estimate.low, estimate.high) if end is not None]
    known = [estimate.value, *ends, *bounds]
    low, high = min(0.0, *known), max(known)
    high = 1.0 if low == 0 and high <= 1 else high + (high - low) * 0.1

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    whole = estimate.low is not None and estimate.high is not None
    return Scale(
        value=place(estimate.value),
        low=place(estimate.low) if whole and estimate.low is not None else None,
        width=place(estimate.high) - place(estimate.low)
        if estimate.low is not None and estimate.high is not None
        else None,
        ticks=tuple(place(bound) for bound in bounds),
        ends=(brief(low) if low else "0", "1" if high == 1 else brief(high)),
    )
