"""Two runs of the same cases, row by row: what got better, what got worse, and which words changed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilith_evals.atomic import write
from trilith_evals.contest import Line
from trilith_evals.figure import brief
from trilith_evals.output.page import line_told, said, templates, text_of
from trilith_evals.report import Report, Row, SuiteReport
from trilith_evals.score import State

_MOST_CASES = 500
"""Changed cases on the page at most."""
_LONGEST_WORDS = 600
"""Texts of more words are shown side by side, but their words are not compared: that takes squared time."""

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Move:
    """One metric of one case in both runs; of several repeats, their mean."""

    metric: str
    before: float | None
    after: float | None
    states: tuple[str, str]
    gain: float
    """How much better it got, in shares of the metric's range over both runs; negative is worse."""

    @property
    def kind(self) -> str:
        """better, worse, state (scored in one run only), or same."""
        if self.states[0] != self.states[1]:
            return "state"
        return "better" if self.gain > 0 else "worse" if self.gain < 0 else "same"

    @property
    def text(self) -> str:
        """For example `0.500 → 1` or `scored → unscored`."""
        if self.kind == "state":
            return f"{self._shown(0)} → {self._shown(1)}"
        return f"{self._shown(0)} → {self._shown(1)}" if self.kind != "same" else self._shown(1)

    def _shown(self, side: int) -> str:
        value = (self.before, self.after)[side]
        if value is None:
            return self.states[side]
        return f"{value:g}" if value in (0, 1) else brief(value)


@dataclass(frozen=True, slots=True)
class Change:
    """One case in both runs."""

    before: Row
    after: Row
    moves: tuple[Move, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """What became of its metrics."""
        return frozenset(move.kind for move in self.moves) - {"same"}

    @property
    def gain(self) -> float:
        """Mean over the metrics; a metric that lost its score counts as wholly worse."""
        gains = [_state_gain(move) if move.kind == "state" else move.gain for move in self.moves]
        return sum(gains) / len(gains) if gains else 0.0


def changes(before: SuiteReport, after: SuiteReport) -> list[Change]:
    """Return the cases of both runs, what got worse first, then by the size of the change.

    Latency is left out where there is any other metric: it differs in every case of every run.
    """
    old, new = _by_case(before.rows), _by_case(after.rows)
    figures = {f.metric: f for f in after.figures}
    metrics = [f.metric for f in before.figures if f.metric in figures]
    metrics = [metric for metric in metrics if metric != "latency_s"] or metrics
    widths = {metric: _width(metric, [*before.rows, *after.rows]) for metric in metrics}
    lower = {m for m, f in figures.items() if f.over_suite or not f.higher_is_better}
    found = [
        Change(
            old[case][0],
            new[case][0],
            tuple(_move(m, old[case], new[case], widths[m], up=m not in lower) for m in metrics),
        )
        for case in new
        if case in old
    ]
    return sorted(found, key=lambda change: (not change.kinds, change.gain, change.after.case.id))


def words(before: str, after: str) -> tuple[list[tuple[bool, str]], list[tuple[bool, str]]]:
    """Split two texts into pieces, each with whether it is in one of them only."""
    a, b = _WORDS.findall(before), _WORDS.findall(after)
    if before == after or max(len(a), len(b)) > _LONGEST_WORDS:
        return [(False, before)], [(False, after)]
    left: list[tuple[bool, str]] = []
    right: list[tuple[bool, str]] = []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if i < j:
            left.append((tag != "equal", "".join(a[i:j])))
        if k < m:
            right.append((tag != "equal", "".join(b[k:m])))
    return left, right


def difference_page(before: Report, after: Report, lines: Sequence[Line], names: tuple[str, str]) -> str:
    """Return one HTML document without outside references that shows two runs side by side.

    Args:
        before: The run that is the measure.
        after: The run in question.
        lines: What `contest.against` made of them.
        names: What to call the two.
    """
    content = before.content and after.content
    old = {suite.name: suite for suite in before.suites}
    pairs = [(old[suite.name], suite) for suite in after.suites if suite.name in old]
    rendered: str = (
        templates()
        .get_template("difference.html.j2")
        .render(
            content=content,
            names=names,
            runs=(before, after),
            suites=[
                _suite_told(a, b, [line for line in lines if line.suite == b.name], content=content)
                for a, b in pairs
            ],
            missing=sorted({s.name for s in (*before.suites, *after.suites)} - {a.name for a, _ in pairs}),
        )
    )
    return rendered


def write_difference(
    before: Report, after: Report, lines: Sequence[Line], names: tuple[str, str], path: Path
) -> None:
    """Write the comparison as one HTML file."""
    write(path, difference_page(before, after, lines, names))


def _suite_told(
    before: SuiteReport, after: SuiteReport, lines: Sequence[Line], *, content: bool
) -> dict[str, Any]:
    found = changes(before, after)
    moved = [change for change in found if change.kinds]
    metrics = [move.metric for move in found[0].moves] if found else []
    counts = {metric: {kind: 0 for kind in ("better", "worse", "state", "same")} for metric in metrics}
    for change in found:
        for move in change.moves:
            counts[move.metric][move.kind] += 1
    shared = {change.after.case.id for change in found}
    return {
        "name": after.name,
        "lines": [line_told(line) for line in lines],
        "changed_data": before.digest != after.digest,
        "counts": counts,
        "metrics": metrics,
        "cases": [_case_told(change, metrics, content=content) for change in moved[:_MOST_CASES]],
        "left_out": max(0, len(moved) - _MOST_CASES),
        "same": len(found) - len(moved),
        "only": (
            len({row.case.id for row in before.rows} - shared),
            len({row.case.id for row in after.rows} - shared),
        ),
    }


def _case_told(change: Change, metrics: Sequence[str], *, content: bool) -> dict[str, Any]:
    left, right = words(_answer(change.before, content), _answer(change.after, content))
    filters = [f"m{n}" for n, metric in enumerate(metrics) if _moved(change, metric)]
    return {
        "id": change.after.case.id,
        "classes": " ".join([*filters, *(f"k-{kind}" for kind in sorted(change.kinds))]),
        "moves": change.moves,
        "input": text_of(change.after.case.input) if content else "",
        "expected": text_of(change.after.case.expected) if content else "",
        "left": left,
        "right": right,
    }


def _moved(change: Change, metric: str) -> bool:
    return any(move.metric == metric and move.kind != "same" for move in change.moves)


def _answer(row: Row, content: bool) -> str:
    if row.failure:
        return f"No answer: {row.failure.told(content=content)}"
    return said(row) if content else ""


def _by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.repeat):
        found.setdefault(row.case.id, []).append(row)
    return found


def _width(metric: str, rows: Sequence[Row]) -> float:
    values = [s.value for row in rows if (s := row.scores.get(metric)) and s.value is not None]
    return (max(values) - min(values)) if values else 0.0


def _move(metric: str, old: Sequence[Row], new: Sequence[Row], width: float, *, up: bool) -> Move:
    before, after = _mean(metric, old), _mean(metric, new)
    gain = 0.0
    if before is not None and after is not None and width:
        gain = (after - before) / width * (1 if up else -1)
    return Move(metric, before, after, (_state(metric, old), _state(metric, new)), gain)


def _mean(metric: str, rows: Sequence[Row]) -> float | None:
    values = [s.value for row in rows if (s := row.scores.get(metric)) and s.value is not None]
    return sum(values) / len(values) if values else None


def _state(metric: str, rows: Sequence[Row]) -> str:
    """Return scored if any repeat was, else what the first one is."""
    scores: list[Mapping[str, Any]] = [row.scores for row in rows]
    states = [held[metric].state for held in scores if metric in held]
    if not states:
        return "not measured"
    return str((State.SCORED if State.SCORED in states else states[0]).value)


def _state_gain(move: Move) -> float:
    return (
        -1.0 if move.states[0] == State.SCORED.value else 1.0 if move.states[1] == State.SCORED.value else 0
    )
