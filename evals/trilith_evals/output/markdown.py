"""The report as Markdown: for a pull request, and for the summary of a GitHub job."""

from __future__ import annotations

import re
from pathlib import Path

from trilith_evals.atomic import write
from trilith_evals.contest import Line
from trilith_evals.figure import Figure
from trilith_evals.gate import Outcome
from trilith_evals.output.page import said, text_of
from trilith_evals.output.telling import flaky, notes, opinion, spent
from trilith_evals.report import Report, Row, SuiteReport

_WORST = 3
_LONGEST = 200
"""Characters of an answer; the page has more."""

_MARKS = {
    Outcome.PASS: "✅ pass",
    Outcome.FAIL: "❌ fail",
    Outcome.NO_EVIDENCE: "❔ no evidence",
    Outcome.COULD_NOT_RUN: "⚠️ could not run",
}

# What Markdown or GitHub would act on: tags, mentions, issue numbers, links, tables, emphasis, code.
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>()#+!|~$@&:-])")


def markdown(report: Report) -> str:
    """Return the whole report, compact: verdicts, figures, comparison, and the three worst cases folded."""
    head = f"## {_MARKS[report.outcome]}: evaluation\n"
    parts = [_suite(suite, content=report.content) for suite in report.suites]
    when = f"{report.started:%Y-%m-%d %H:%M} UTC"
    foot = f"<sub>exit code {report.exit_code} · {report.duration_s:.1f} s · {when}</sub>\n"
    return "\n".join([head, *parts, foot])


def write_markdown(report: Report, path: Path) -> None:
    """Write the report as Markdown."""
    write(path, markdown(report))


def differences(lines: list[Line] | tuple[Line, ...], names: tuple[str, str]) -> str:
    """Return what two runs' comparison came to, as a table."""
    rows = [
        f"| {_plain(line.suite)} | {_plain(_of(line.metric, line.slice))} | {_MARKS[line.check.outcome]} "
        f"| {_plain(_line_message(line))} |"
        for line in lines
    ]
    title = f"## {_plain(names[1])} against {_plain(names[0])}\n"
    return "\n".join([title, "| suite | metric | | found |", "| --- | --- | --- | --- |", *rows]) + "\n"


def _suite(suite: SuiteReport, *, content: bool) -> str:
    times = f" × {suite.repeats}" if suite.repeats > 1 else ""
    split = f" / {suite.split}" if suite.split else ""
    parts = [
        f"### {_MARKS[suite.outcome]}: {_plain(suite.name)}\n",
        f"{_plain(suite.target)} ({suite.task}), {suite.cases} cases{times} of "
        f"{_plain(suite.data + split)} `{suite.digest[:12]}`\n",
    ]
    if suite.rests_on:
        parts.append(f"{_plain(suite.rests_on)}\n")
    if suite.stopped:
        parts.append(f"The run was given up: {_plain(suite.stopped.told(content=content))}\n")
    parts += [
        f"> **Uncalibrated judge**: {_plain(opinion(mark))}\n" for mark in suite.judges if not mark.calibrated
    ]
    parts.append("| | check | found |\n| --- | --- | --- |")
    checks = sorted(suite.checks, key=lambda check: check.outcome is Outcome.PASS)
    parts += [f"| {_MARKS[c.outcome]} | {_plain(c.name)} | {_plain(c.message)} |" for c in checks]
    if suite.lines:
        parts.append(
            f"\n| against {_plain(suite.baseline or 'the run before')} | | found |\n| --- | --- | --- |"
        )
        parts += [
            f"| {_plain(_of(line.metric, line.slice))} | {_MARKS[line.check.outcome]} "
            f"| {_plain(_line_message(line))} |"
            for line in suite.lines
        ]
    passes = [figure for one in suite.repeated for figure in one.figures]
    parts.append(_folded("Figures", _figures([*suite.figures, *passes, *suite.slices])))
    known = [
        f"judge of {mark.metric} is calibrated: {mark.agreement}" for mark in suite.judges if mark.calibrated
    ]
    if lines := [*notes(suite), *known]:
        parts.append("\n".join(f"- {_plain(line)}" for line in lines) + "\n")
    worst = [row for row in suite.rows if _below(row, suite)][:_WORST]
    if worst:
        parts.append(_folded("Worst cases", "\n".join(_case(row, suite, content=content) for row in worst)))
    about = []
    if (count := flaky(suite)) is not None:
        about.append(f"{count} of {suite.cases} cases differ between repeats")
    if suite.spend:
        about.append(f"spent {spent(suite.spend)}")
    if about:
        parts.append(_plain("; ".join(about)) + "\n")
    return "\n".join(parts)


def _figures(figures: list[Figure]) -> str:
    rows = [
        f"| {_plain(_of(f.metric, f.slice))} | {_plain(f.text)} | {f.scored}/{f.total} | {f.abstained} "
        f"| {_plain(_unscored(f))} |"
        for f in figures
    ]
    head = (
        "| metric | figure, 95 % interval | scored | abstained | unscored |\n| --- | --- | --: | --: | --- |"
    )
    return "\n".join([head, *rows])


def _unscored(figure: Figure) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in figure.reasons.items())
    return f"{figure.unscored} ({why})" if why else str(figure.unscored)


def _below(row: Row, suite: SuiteReport) -> bool:
    """Whether a row has anything wrong: rows are in order, and the best ones are not worst cases."""
    if row.output is None or not row.complete:
        return True
    best = {f.metric: f for f in suite.figures if f.metric != "latency_s"}
    values = [(f, s.value) for m, f in best.items() if (s := row.scores.get(m)) and s.value is not None]
    return any(value < 1 if f.higher_is_better and not f.over_suite else value > 0 for f, value in values)


def _case(row: Row, suite: SuiteReport, *, content: bool) -> str:
    repeat = f" (repeat {row.repeat + 1})" if suite.repeats > 1 else ""
    scores = ", ".join(
        f"{metric} {score.value:.3g}" if score.value is not None else f"{metric} {score.state.value}"
        for metric, score in row.scores.items()
    )
    lines = [f"- **{_plain(row.case.id)}**{repeat}: {_plain(scores)}"]
    if row.failure:
        lines.append(f"  - no answer: {_short(row.failure.told(content=content))}")
    if content:
        told = (
            ("input", text_of(row.case.input)),
            ("expected", text_of(row.case.expected)),
            ("answer", said(row)),
        )
        lines += [f"  - {name}: {_short(text)}" for name, text in told if text]
    return "\n".join(lines)


def _folded(title: str, text: str) -> str:
    return f"\n<details><summary>{title}</summary>\n\n{text}\n\n</details>\n"


def _of(metric: str, part: str) -> str:
    return f"{metric} ({part})" if part else metric


def _line_message(line: Line) -> str:
    return line.check.message + (" (the dataset has changed)" if line.changed else "")


def _short(text: str) -> str:
    return _plain(text if len(text) <= _LONGEST else text[:_LONGEST] + " …")


def _plain(text: str) -> str:
    """Escape what Markdown would act on, and keep it on one line: an answer must not write the summary."""
    one_line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _ACTIVE.sub(_entity, one_line)


def _entity(found: re.Match[str]) -> str:
    # Entities and not backslashes: GitHub still links @names and #numbers after a backslash. Marks that only
    # act at the start of a line, or doubled, are left readable where they stand alone.
    sign = found.group(1)
    if sign in "()+:-!{}":
        return sign
    return f"&#{ord(sign)};"
