"""What a run found: rows, figures, checks, and the outcome that they add up to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from trilith.types import Usage
from trilith_evals.case import Case, Output
from trilith_evals.contest import Line
from trilith_evals.figure import Figure
from trilith_evals.gate import Check, Outcome, Threshold, worst
from trilith_evals.repeat import Repeated
from trilith_evals.score import Score, State


class Cause(StrEnum):
    """Whose doing it is that a case has no output."""

    TARGET = "target"
    """The target raised, refused, or gave no answer in time."""
    INFRASTRUCTURE = "infrastructure"
    """The network, the gateway or an engine failed; the same case may well be answered next time."""
    SETUP = "setup"
    """No case can succeed: a wrong key, an unknown model, an exhausted budget."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a case has no output."""

    cause: Cause
    reason: str
    """Short, the same for the same cause, free of the case's content."""
    detail: str = ""
    """The error's message; may quote the case."""

    def told(self, *, content: bool) -> str:
        """Return the reason, with the detail where content may be shown."""
        return f"{self.reason}: {self.detail}" if content and self.detail else self.reason


@dataclass(frozen=True, slots=True)
class Row:
    """One case, once."""

    case: Case
    repeat: int
    """From 0."""
    output: Output | None
    failure: Failure | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)
    """By metric."""
    pairs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Truth and prediction, by metric, for figures over the whole suite."""
    fingerprint: str = ""
    """Of question and expected answer, where the row was read back without them; else it is made of them."""

    @property
    def complete(self) -> bool:
        """Whether every scorer came to a result."""
        return all(score.state is not State.UNSCORED for score in self.scores.values())


@dataclass(frozen=True, slots=True)
class Spend:
    """What a run cost, and what it was allowed to."""

    cap_pico_usd: int | None = None
    """Most that it might cost (10^-12 USD); None: no limit."""
    target_pico_usd: int = 0
    """Spent on the target's answers."""
    scorers_pico_usd: int = 0
    """Spent on judges."""
    calls: int = 0
    """Calls that were made, repeated ones included."""
    kept: int = 0
    """Answers and judgements that were kept from earlier, and cost nothing."""
    unpriced: int = 0
    """Calls whose price nobody told."""

    @property
    def total_pico_usd(self) -> int:
        """All of it."""
        return self.target_pico_usd + self.scorers_pico_usd


@dataclass(frozen=True, slots=True)
class JudgeMark:
    """What is known of the judge behind a metric."""

    metric: str
    judge: str
    """The judge's fingerprint: model, rubric, parameters."""
    calibrated: bool
    """Whether it was held against people's verdicts, and the same judge is still in use."""
    agreement: str = ""
    """What came of that, in one line."""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """One suite's run."""

    name: str
    target: str
    task: str
    """chat, rag, predictor or callable."""
    data: str
    """Name of the dataset's file."""
    digest: str
    """sha256 of the dataset, hexadecimal."""
    cases: int
    repeats: int
    thresholds: tuple[Threshold, ...]
    figures: tuple[Figure, ...]
    checks: tuple[Check, ...]
    rows: tuple[Row, ...]
    """Worst first: what failed, then what scored lowest."""
    duration_s: float
    stopped: Failure | None = None
    """Why the run was given up before its end; None when it was not."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    slices: tuple[Figure, ...] = ()
    """The same figures for parts of the cases."""
    baseline: str = ""
    """The run that this one was held against; empty for none."""
    lines: tuple[Line, ...] = ()
    """The comparison with it, metric by metric."""
    judges: tuple[JudgeMark, ...] = ()
    """What is known of the judges that scored."""
    spend: Spend | None = None
    """What it cost; None when nothing kept count."""
    split: str = ""
    """Name of the part of the dataset; empty for the whole."""
    held_out: bool = False
    """Whether nobody was to tune on these cases."""
    content_digest: str = ""
    """sha256 of what the dataset's rows say, whatever their order and format; hexadecimal."""
    looks: int = 0
    """How often runs saw these held-out cases, this one included; 0 when nobody counts."""
    releases: tuple[str, ...] = ()
    """Digests of the releases that answered, as the gateway says."""
    source: Path | None = None
    """The dataset's file; None for rows in memory. In no output but MLflow."""
    repeated: tuple[Repeated, ...] = ()
    """What repeats tell, by metric; empty where every case ran once."""
    planned_rows: int = 0
    """Rows that there would have been at most, where the run might stop when decided; 0: it might not."""

    @property
    def outcome(self) -> Outcome:
        """What the checks add up to."""
        return worst(check.outcome for check in self.checks)

    @property
    def rests_on(self) -> str:
        """What part of which data was run and which release answered, in one line; empty when nobody says."""
        told = [f"split {self.split}"] if self.split else []
        if self.held_out:
            told.append(f"held out, looked at {self.looks} times" if self.looks else "held out")
        if self.releases:
            told.append(f"{'release' if len(self.releases) == 1 else 'releases'} {', '.join(self.releases)}")
        return "; ".join(told)

    @property
    def complete_rows(self) -> int:
        """Rows on which every scorer came to a result."""
        return sum(row.complete for row in self.rows)

    @property
    def usage(self) -> Usage:
        """What all calls used, as far as the target says."""
        used = (row.output.usage for row in self.rows if row.output and row.output.usage)
        return sum(used, start=Usage(requests=0))


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    suites: tuple[SuiteReport, ...]
    started: datetime
    duration_s: float
    content: bool = True
    """Whether inputs, answers and error messages may be written out."""

    @property
    def outcome(self) -> Outcome:
        """What the suites add up to."""
        return worst(suite.outcome for suite in self.suites)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 no evidence either way, 3 could not run."""
        return self.outcome.exit_code

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values; without content where `content` is off."""
        return {
            "outcome": self.outcome.value,
            "exit_code": self.exit_code,
            "started": self.started.isoformat(),
            "duration_s": round(self.duration_s, 3),
            "content": self.content,
            "suites": [suite_json(suite, content=self.content) for suite in self.suites],
        }


def suite_json(suite: SuiteReport, *, content: bool) -> dict[str, Any]:
    """Return one suite as plain JSON values."""
    return {
        "name": suite.name,
        "outcome": suite.outcome.value,
        "target": suite.target,
        "task": suite.task,
        "parameters": dict(suite.parameters),
        "data": suite.data,
        "digest": suite.digest,
        "cases": suite.cases,
        "repeats": suite.repeats,
        "duration_s": round(suite.duration_s, 3),
        "stopped": _failure_json(suite.stopped, content=content),
        "usage": asdict(suite.usage),
        "spend": asdict(suite.spend) if suite.spend else None,
        "split": suite.split,
        "held_out": suite.held_out,
        "content_digest": suite.content_digest,
        "releases": list(suite.releases),
        "looks": suite.looks,
        "repeated": [asdict(one) for one in suite.repeated],
        "planned_rows": suite.planned_rows,
        "judges": [asdict(judge) for judge in suite.judges],
        "slices": [{**asdict(f), "coverage": f.coverage} for f in suite.slices],
        "baseline": suite.baseline,
        "lines": [line_json(line) for line in suite.lines],
        "thresholds": [asdict(threshold) for threshold in suite.thresholds],
        "figures": [{**asdict(f), "coverage": f.coverage} for f in suite.figures],
        "checks": [{**asdict(c), "outcome": c.outcome.value} for c in suite.checks],
        "rows": [_row_json(row, content=content) for row in suite.rows],
    }


def _row_json(row: Row, *, content: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"id": row.case.id, "repeat": row.repeat, "cluster": row.case.cluster}
    told["print"] = row.fingerprint or _print(row.case)
    if row.case.line is not None:
        told["line"] = row.case.line
    if row.case.tags:
        told["tags"] = dict(row.case.tags)
    if row.failure:
        told["failure"] = _failure_json(row.failure, content=content)
    if row.output:
        told |= {"latency_s": round(row.output.latency_s, 4), "request_id": row.output.request_id}
        told |= {"release": row.output.release} if row.output.release else {}
        told |= {"cost_pico_usd": row.output.cost_pico_usd, "cached": row.output.cached}
        told["usage"] = asdict(row.output.usage) if row.output.usage else None
    told["scores"] = {metric: _score_json(s, content=content) for metric, s in row.scores.items()}
    if not content:
        return told
    if row.pairs:
        told["pairs"] = {metric: list(pair) for metric, pair in row.pairs.items()}
    told |= {"input": row.case.input, "expected": row.case.expected}
    if row.output:
        told["output"] = dict(row.output.values) or row.output.text
        told["citations"] = [f"{c.path}:{c.start}-{c.end}" for c in row.output.citations]
        if row.output.tool_calls:
            told["tool_calls"] = [asdict(call) for call in row.output.tool_calls]
    return told


def _print(case: Case) -> str:
    """Return a fingerprint of question and expected answer: a later run of changed ones is no pair to it."""
    text = json.dumps([case.input, case.expected], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _score_json(score: Score, *, content: bool) -> dict[str, Any]:
    told = {"state": score.state.value, "value": score.value, "reason": score.reason}
    if score.infrastructure:
        told["infrastructure"] = True
    if score.cost_pico_usd:
        told["cost_pico_usd"] = score.cost_pico_usd
    return {**told, "detail": score.detail} if content and score.detail else told


def line_json(line: Line) -> dict[str, Any]:
    """Return one comparison as plain JSON values."""
    told = asdict(line)
    told["comparison"]["verdict"] = line.comparison.verdict.value
    told["check"]["outcome"] = line.check.outcome.value
    return told


def _failure_json(failure: Failure | None, *, content: bool) -> dict[str, str] | None:
    if failure is None:
        return None
    told = {"cause": failure.cause.value, "reason": failure.reason}
    return {**told, "detail": failure.detail} if content else told


def worst_first(rows: Sequence[Row], figures: Sequence[Figure]) -> tuple[Row, ...]:
    """Order rows: those without output, those not wholly scored, then by their mean standing from the bottom.

    A row's standing in a metric is its place between the worst and the best value, from 0 to 1. Latency
    counts only where nothing else does.
    """
    lower_is_better = {f.metric for f in figures if f.over_suite or not f.higher_is_better}
    standings: dict[int, list[float]] = {id(row): [] for row in rows}
    metrics = {figure.metric for figure in figures}
    for metric in (metrics - {"latency_s"}) or metrics:
        values = {id(row): row.scores[metric].value for row in rows if metric in row.scores}
        known = [value for value in values.values() if value is not None]
        if not known or min(known) == max(known):
            continue
        low, high = min(known), max(known)
        for key, value in values.items():
            if value is not None:
                place = (value - low) / (high - low)
                standings[key].append(1 - place if metric in lower_is_better else place)

    def standing(row: Row) -> tuple[bool, bool, float]:
        places = standings[id(row)]
        return row.output is not None, row.complete, sum(places) / len(places) if places else 1.0

    return tuple(sorted(rows, key=standing))
