"""What a run shows in a terminal: a line that counts while it lasts, and a table at its end."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TextIO

from trilith.money import format_usd
from trilith_evals import repeat
from trilith_evals.figure import Figure, brief
from trilith_evals.gate import Outcome
from trilith_evals.output.telling import harmless, spent
from trilith_evals.report import JudgeMark, Report, Spend, SuiteReport
from trilith_evals.score import State

_MARKS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "FAIL",
    Outcome.NO_EVIDENCE: "no evidence",
    Outcome.COULD_NOT_RUN: "COULD NOT RUN",
}

_REDRAW_S = 0.1


_EXAMPLES = 3
_LONGEST = 300
"""Characters of an error that is quoted."""


class Meter:
    """Counts finished cases on one line of stderr; silent where stderr is not a terminal.

    Beside the count stand what the run has cost so far, its rate, the time it still takes at that rate, and
    the answers that were kept from earlier. Those come at once, and are left out of the rate.
    """

    def __init__(
        self, name: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the suite's name, and for tests another stream than stderr and another clock."""
        self._name = name
        self._stream = stream or sys.stderr
        self._clock = clock
        self._began = clock()
        self._drawn = -math.inf
        self._shown = False
        self._spend: Callable[[], Spend] | None = None

    def __enter__(self) -> Meter:
        return self

    def watch(self, spend: Callable[[], Spend]) -> None:
        """Show what this says of the run's money, too."""
        self._spend = spend

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total`, ten times a second at most."""
        now = self._clock()
        if not self._stream.isatty() or (now - self._drawn < _REDRAW_S and done < total):
            return
        print(f"\r{self._line(done, total, now)}\x1b[K", end="", file=self._stream, flush=True)
        self._drawn, self._shown = now, True

    def _line(self, done: int, total: int, now: float) -> str:
        parts = [f"{self._name}: {done}/{total} cases"]
        spend = self._spend() if self._spend else None
        if spend and spend.total_pico_usd:
            cap = "" if spend.cap_pico_usd is None else f" of {format_usd(spend.cap_pico_usd)}"
            parts.append(f"{format_usd(spend.total_pico_usd)}{cap} USD")
        kept = spend.kept if spend else 0
        if (fresh := done - min(kept, done)) and now > self._began:
            rate = fresh / (now - self._began)
            parts.append(f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min")
            parts.append(f"{_span((total - done) / rate)} left")
        if kept:
            parts.append(f"{kept} kept")
        return ", ".join(parts)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=self._stream, flush=True)


def _span(seconds: float) -> str:
    """Write a time as `h:mm:ss`, or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(report: Report) -> str:
    """Write the whole report as text."""
    parts = ["\n".join(map(harmless, _suite(suite, content=report.content))) for suite in report.suites]
    return "\n\n".join(
        [*parts, f"{_MARKS[report.outcome]} (exit code {report.exit_code}, {report.duration_s:.1f} s)"]
    )


def _suite(suite: SuiteReport, *, content: bool) -> list[str]:
    times = f" x {suite.repeats}" if suite.repeats > 1 else ""
    head = [
        f"{suite.name}: {suite.target} ({suite.task}), {suite.cases} cases{times} of {suite.data}, "
        f"{suite.duration_s:.1f} s"
    ]
    if suite.rests_on:
        head.append(f"  {suite.rests_on}")
    if suite.stopped:
        head.append(f"  {_MARKS[suite.outcome]}: {suite.stopped.told(content=content)}")
        if not any(figure.scored for figure in suite.figures):
            return head
    head += map(_judge, suite.judges)
    if len(suite.rows) < suite.planned_rows:
        head.append(f"  stopped when decided, after {len(suite.rows)} of {suite.planned_rows} rows")
    rows = [("metric", "figure", "95 % interval", "rows", "unscored", ""), *(_row(f) for f in suite.figures)]
    checks = [f"  {_MARKS[check.outcome]:<13} {check.name}: {check.message}" for check in suite.checks]
    repeats = [f"  repeats       {line}" for line in repeat.table(suite.repeated)]
    examples = _examples(suite) if content else []
    cost = [f"  spent         {spent(suite.spend)}"] if suite.spend else []
    return [*head, *_aligned(rows), *repeats, *checks, *examples, *_worse_slices(suite), *cost]


def _examples(suite: SuiteReport) -> list[str]:
    """Quote one row's error for each of the commonest reasons: the reason alone hardly says what to mend."""
    found: dict[str, tuple[str, str]] = {}
    counts: Counter[str] = Counter()
    for row in suite.rows:
        for reason in {score.reason for score in row.scores.values() if score.state is State.UNSCORED}:
            counts[reason] += 1
            detail = next((s.detail for s in row.scores.values() if s.reason == reason and s.detail), "")
            if detail:
                found.setdefault(reason, (row.case.id, detail))
    common = [(reason, *found[reason]) for reason, _ in counts.most_common() if reason in found]
    return [
        f"  for example   {case}: {reason}: {detail[:_LONGEST]}"
        for reason, case, detail in common[:_EXAMPLES]
    ]


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
