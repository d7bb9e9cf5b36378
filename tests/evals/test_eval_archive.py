"""Whatever a report may say is still said after it was written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilith.types import Citation, Particulars, Usage
from trilith_evals import (
    Case,
    Check,
    Figure,
    Outcome,
    Output,
    Report,
    Row,
    Score,
    State,
    SuiteReport,
    Threshold,
    ToolCall,
    archive,
)
from trilith_evals.comparison import Comparison, Verdict
from trilith_evals.contest import Line
from trilith_evals.estimate import Estimate
from trilith_evals.repeat import Repeated
from trilith_evals.report import Cause, Failure, JudgeMark, Spend

LEFT_OUT = {
    (SuiteReport, "source"),
    (Case, "fields"),
    (Row, "fingerprint"),  # made of question and expected answer
    *((Citation, name) for name in ("document_id", "quote", "page", "title", "score", "supported")),
}
"""What the JSON does not hold: a path of the machine, columns and quotes that may be long."""

ESTIMATE = Estimate(0.5, 0.4, 0.6, 20, 10, "ppi++", error=0.1, degrees=9.0, worth=8.0, tuned=0.3)
FIGURE = Figure(
    "exact",
    ESTIMATE,
    scored=18,
    abstained=1,
    unscored=1,
    infrastructure=1,
    reasons={"late": 1},
    higher_is_better=False,
    over_suite=True,
    slice="lang=de",
    bounds=(0.45, 0.55),
    problem="undefined for one class",
    uncorrected=ESTIMATE,
)
CHECK = Check("exact >= 0.5", "exact", Outcome.NO_EVIDENCE, "too few rows")
COMPARISON = Comparison(ESTIMATE, 0.04, Verdict.WORSE, 2, 300, 0.1, least_p=0.01)
USAGE = Usage(
    *(40, 30, 5, 4, 3, 2, 1, 7, 6),
    particulars=Particulars(1, 2, 3, 4, 5, 6, 7, 8, "flex"),
)
ROWS = (
    Row(
        Case("a", "question?", ["x", "y"], "document", {"note": "long"}, 7, {"lang": "de"}),
        1,
        Output(
            text="0.5",
            values={"p": 0.5},
            citations=(Citation(1, "d", "a:b.md", 3, 9, "quoted", 2, "Title", 0.5, False),),
            tool_calls=(ToolCall("look", {"at": 1}),),
            usage=USAGE,
            latency_s=0.25,
            request_id="r-1",
            cost_pico_usd=12,
            release="0123456789ab version 2",
            cached=True,
        ),
        scores={
            "exact": Score(State.SCORED, 0.5, detail="half of it", cost_pico_usd=9),
            "judge": Score(State.UNSCORED, None, reason="late", infrastructure=True),
        },
        pairs={"exact": ("x", "y")},
    ),
    Row(Case("b", "?"), 0, None, Failure(Cause.INFRASTRUCTURE, "late", "after 3 s")),
)
SUITE = SuiteReport(
    name="bot",
    target="m",
    task="chat",
    data="cases.jsonl",
    digest="ab" * 32,
    cases=2,
    repeats=2,
    thresholds=(Threshold("exact", 0.5, 0.9, "interval"),),
    figures=(FIGURE,),
    checks=(CHECK,),
    rows=ROWS,
    duration_s=1.5,
    stopped=Failure(Cause.SETUP, "the cost cap is reached", "0.10 USD"),
    parameters={"temperature": 0},
    slices=(FIGURE,),
    baseline="main",
    lines=(Line("bot", "exact", COMPARISON, CHECK, changed=True, slice="lang=de"),),
    judges=(JudgeMark("judge", "fingerprint", True, "kappa 0.8"),),
    spend=Spend(100, 20, 30, calls=4, kept=5, unpriced=6),
    split="test",
    held_out=True,
    content_digest="cd" * 32,
    looks=3,
    releases=("0123456789ab", "ba9876543210"),
    source=Path("cases.jsonl"),
    repeated=(Repeated("exact", 0.1, 0.2, 0.3, ("a",), (FIGURE,)),),
    planned_rows=40,
)
REPORT = Report((SUITE,), datetime(2026, 1, 2, tzinfo=UTC), 2.5, content=True)


def parts(value: Any) -> Iterator[Any]:
    """Yield every dataclass in a value."""
    if is_dataclass(value):
        yield value
        value = [getattr(value, one.name) for one in fields(value)]
    for one in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    ):
        yield from parts(one)


def standard(one: Field[Any]) -> Any:
    return one.default_factory() if one.default_factory is not MISSING else one.default


def known(report: Report) -> set[tuple[Any, str, str]]:
    """Return everything that a report says, without what may be left out."""
    return {
        (type(part), one.name, repr(getattr(part, one.name)))
        for part in parts(report)
        for one in fields(part)
        if (type(part), one.name) not in LEFT_OUT and not list(parts(getattr(part, one.name)))
    }


def test_every_field_of_a_report_is_set_here() -> None:
    # A new field lands in this test first: set it above, and see whether it comes back.
    every = {(type(part), one.name) for part in parts(REPORT) for one in fields(part)}
    told = {
        (type(part), one.name)
        for part in parts(REPORT)
        for one in fields(part)
        if one.default is MISSING
        and one.default_factory is MISSING
        or getattr(part, one.name) != standard(one)
    }
    assert every - told == {(Row, "fingerprint"), (Report, "content")}


def test_everything_comes_back() -> None:
    written = json.loads(json.dumps(REPORT.to_json()))
    again = archive.report(written)
    assert known(REPORT) <= known(again)
    assert json.loads(json.dumps(again.to_json())) == written


def test_without_content_the_rest_comes_back() -> None:
    report = Report((SUITE,), REPORT.started, 2.5, content=False)
    written = json.loads(json.dumps(report.to_json()))
    again = archive.report(written)
    assert json.loads(json.dumps(again.to_json())) == written
    private = (Case, Output, ToolCall, Citation, Score, Failure, Row, Report)
    public = {one for one in known(REPORT) if one[0] not in private}
    assert public <= known(again)
    assert "question?" not in json.dumps(written)
