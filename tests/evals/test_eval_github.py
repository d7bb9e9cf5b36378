"""Markdown, annotations and JUnit of a run, as a pull request sees them."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

import trilith_evals as evals
from trilith_evals import contest, recorded
from trilith_evals.gate import Check, Outcome
from trilith_evals.output.file import write_json
from trilith_evals.output.github import append_summary, commands
from trilith_evals.output.junit import junit
from trilith_evals.output.markdown import markdown
from trilith_evals.report import JudgeMark

NASTY = "</details><img src=x> | @someone #12 [a](http://x)\n# Head `code` ::error::x"


def judged(wrong: int) -> evals.Report:
    rows = [{"id": f"row-{i}", "input": i, "expected": str(i)} for i in range(20)]
    return evals.run(
        lambda i: NASTY if i < wrong else str(i),
        rows,
        ["exact"],
        name="numbers",
        thresholds=[evals.Threshold("exact", min=0.5)],
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> evals.Report:
    """A run that is worse than the one before it."""
    folder = tmp_path_factory.mktemp("runs")
    before, after = judged(0), judged(15)
    write_json(before, folder / "a.json")
    write_json(after, folder / "b.json")
    lines = contest.against(recorded.read(folder / "a.json"), recorded.read(folder / "b.json"))
    return replace(after, suites=(replace(after.suites[0], lines=tuple(lines), baseline="main"),))


def test_markdown_tells_verdict_comparison_and_three_worst_cases(report: evals.Report) -> None:
    text = html.unescape(markdown(report))
    assert "❌ fail" in text.splitlines()[0]
    assert "| exact | ❌ fail | worse: -0.75" in text
    assert len(re.findall(r"^- \*\*row-", text, flags=re.MULTILINE)) == 3


def test_an_answer_cannot_write_into_the_markdown(report: evals.Report) -> None:
    text = markdown(report)
    assert "<img" not in text
    assert "@someone" not in text
    assert "#12" not in re.sub(r"&#\d+;", "", text)
    assert "[a](" not in text
    assert text.count("<details>") == text.count("</details>") == 2
    assert "# Head" not in re.sub(r"&#\d+;", "", text)


def test_markdown_without_content_quotes_no_case(report: evals.Report) -> None:
    text = html.unescape(markdown(replace(report, content=False)))
    assert "Head" not in text
    assert "row-0" in text


def test_markdown_marks_an_uncalibrated_judge(report: evals.Report) -> None:
    marked = replace(report.suites[0], judges=(JudgeMark("exact", "judge-1", False),))
    assert "**Uncalibrated judge**" in markdown(replace(report, suites=(marked,)))


def test_a_failed_check_is_annotated_at_the_line_of_its_suite(report: evals.Report, tmp_path: Path) -> None:
    file = tmp_path / "evals.yaml"
    file.write_text("suites:\n  - task: chat\n    name: numbers\n", encoding="utf-8")
    told = commands(report, file).splitlines()
    assert told[0].startswith(f"::error file={file},line=3,title=numbers%3A fail%3A exact >= 0.5::")
    assert any("exact is not worse" in line for line in told)


def test_no_evidence_is_a_warning_and_line_ends_are_escaped(report: evals.Report) -> None:
    check = Check("a, b: c", "exact", Outcome.NO_EVIDENCE, "100 %\n::error::x")
    told = commands(replace(report, suites=(replace(report.suites[0], checks=(check,), lines=()),)))
    assert told == "::warning title=numbers%3A no evidence%3A a%2C b%3A c::100 %25%0A::error::x"


def test_a_passed_run_is_annotated_with_nothing() -> None:
    assert commands(judged(0)) == ""


def test_the_summary_is_appended_to_what_is_there(report: evals.Report, tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n", encoding="utf-8")
    assert append_summary(report, {"GITHUB_STEP_SUMMARY": str(file)})
    assert file.read_text("utf-8").startswith("before\n## ")
    assert not append_summary(report, {})


def test_junit_holds_the_comparison_too(report: evals.Report) -> None:
    found = {case.get("name"): case for case in ElementTree.fromstring(junit(report)).iter("testcase")}
    assert found["exact is not worse against main"].find("failure") is not None
