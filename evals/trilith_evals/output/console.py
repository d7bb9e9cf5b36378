"""What a run shows in a terminal: a line that counts while it lasts, and a table at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from trilith_evals import repeat
from trilith_evals.figure import Figure, brief
from trilith_evals.gate import Outcome
from trilith_evals.output.telling import spent
from trilith_evals.report import JudgeMark, Report, SuiteReport

_MARKS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "FAIL",
    Outcome.NO_EVIDENCE: "no evidence",
    Outcome.COULD_NOT_RUN: "COULD NOT RUN",
}


class Meter:
    """Counts finished cases on one line of stderr; silent where stderr is not a terminal."""

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        """Take the suite's name, and another stream than stderr for tests."""
        self._name = name
        self._stream = stream or sys.stderr
        self._shown = False

    def __enter__(self) -> Meter:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total`."""
        if self._stream.isatty():
            print(f"\r{self._name}: {done}/{total} cases", end="", file=self._stream, flush=True)
            self._shown = True

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=self._stream, flush=True)


def table(report: Report) -> str:
    """Write the whole report as text."""
    parts = [_suite(suite, content=report.content) for suite in report.suites]
    return "\n\n".join(
        [*parts, f"{_MARKS[report.outcome]} (exit code {report.exit_code}, {report.duration_s:.1f} s)"]
    )


def _suite(suite: SuiteReport, *, content: bool) -> str:
    times = f" x {suite.repeats}" if suite.repeats > 1 else ""
    head = (
        f"{suite.name}: {suite.target} ({suite.task}), {suite.cases} cases{times} of {suite.data}, "
        f"{suite.duration_s:.1f} s"
    )
    if suite.rests_on:
        head += f"\n  {suite.rests_on}"
    if suite.stopped:
        head = f"{head}\n  {_MARKS[suite.outcome]}: {suite.stopped.told(content=content)}"
        if not any(figure.scored for figure in suite.figures):
            return head
    head = "\n".join([head, *map(_judge, suite.judges)])
    if len(suite.rows) < suite.planned_rows:
        head += f"\n  stopped when decided, after {len(suite.rows)} of {suite.planned_rows} rows"
    rows = [("metric", "figure", "95 % interval", "rows", "unscored", ""), *(_row(f) for f in suite.figures)]
    checks = [f"  {_MARKS[check.outcome]:<13} {check.name}: {check.message}" for check in suite.checks]
    repeats = [f"  repeats       {line}" for line in repeat.table(suite.repeated)]
    cost = [f"  spent         {spent(suite.spend)}"] if suite.spend else []
    return "\n".join([head, *_aligned(rows), *repeats, *checks, *_worse_slices(suite), *cost])


def _worse_slices(suite: SuiteReport) -> list[str]:
    """Name the slices that got worse since the run before; part of the verdict only where a gate says so."""
    of = [line for line in suite.lines if line.slice]
    worse = [line for line in of if line.check.outcome is Outcome.FAIL]
    if of and not worse:
        return [f"  no slice got worse beyond doubt since {suite.baseline}, of {len(of)} looked at"]
    return [f"  worse slice   {line.metric} [{line.slice}]: {line.check.message}" for line in worse]


def _row(figure: Figure) -> tuple[str, ...]:
    value, _, interval = figure.text.partition(" ")
    asides = [f"abstained {figure.abstained}"] if figure.abstained else []
    if figure.uncorrected is not None:
        asides.append(f"corrected by people's labels, without {brief(figure.uncorrected.value)}")
    aside = ", ".join(asides)
    return (figure.metric, value, interval, f"{figure.scored}/{figure.total}", str(figure.unscored), aside)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _judge(mark: JudgeMark) -> str:
    known = "calibrated" if mark.calibrated else "NOT CALIBRATED"
    return f"  {known} judge of {mark.metric}: {mark.agreement}"
