"""Console, JUnit XML, page and JSON tell the same story, and none of them can be broken by an answer."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import trilith_evals as evals
from trilith.errors import APIConnectionError
from trilith_evals import Report, Threshold
from trilith_evals.output.console import Meter, table
from trilith_evals.output.file import write_json
from trilith_evals.output.junit import junit
from trilith_evals.output.markdown import markdown
from trilith_evals.output.page import page, scale
from trilith_evals.report import JudgeMark, Spend

NASTY = "<script>alert(1)</script> & \x00\x1b[31m \ud800 ]]> {{ 7 * 7 }}"


def target(value: int) -> str:
    if value == 0:
        raise ValueError(f"private {NASTY}")
    return f"private {NASTY} {value if value % 2 else 'wrong'}"


@pytest.fixture(scope="module")
def report() -> Report:
    rows = [{"id": f"row-{i}", "input": i, "expected": str(i)} for i in range(20)]
    return evals.run(
        target,
        rows,
        ["contains", "latency"],
        name="nasty",
        thresholds=[Threshold("contains", min=0.9), Threshold("latency_s", max=60)],
    )


def cases(xml: str) -> dict[str, ElementTree.Element]:
    return {case.get("name", ""): case for case in ElementTree.fromstring(xml).iter("testcase")}


def test_junit_has_a_testcase_per_check_and_one_per_group_of_unscored_rows(report: Report) -> None:
    found = cases(junit(report))
    assert list(found) == [
        "coverage >= 0.95",
        "contains >= 0.9",
        "latency_s <= 60",
        "no answer: ValueError",
    ]
    assert found["contains >= 0.9"].find("failure") is not None
    assert found["latency_s <= 60"].find("failure") is None
    assert found["no answer: ValueError"].find("skipped") is not None


def test_junit_counts_what_it_holds(report: Report) -> None:
    (suite,) = ElementTree.fromstring(junit(report))
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]


def test_junit_tells_what_could_not_run_from_what_failed() -> None:
    def down(value: int) -> str:
        raise APIConnectionError(f"cannot reach it\x00{NASTY}")

    case = cases(junit(evals.run(down, [{"input": 1}], ["exact"])))["run"]
    assert case.find("error") is not None
    assert case.find("failure") is None


def test_the_page_shows_an_answer_and_never_runs_it(report: Report) -> None:
    html = page(report)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "{{ 7 * 7 }}" in html


def test_the_page_needs_nothing_from_anywhere(report: Report) -> None:
    assert re.findall(r"(?:src|href)\s*=\s*\"(?!#)[^\"]*|url\(|@import|https?://", page(report)) == []


def test_every_element_of_the_page_is_closed(report: Report) -> None:
    open_elements: list[str] = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                open_elements.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_elements.pop() == tag

    Checker().feed(page(report))
    assert open_elements == []


def test_the_page_says_what_it_holds_and_what_the_verdict_rests_on(report: Report) -> None:
    html = page(report)
    assert "holds the cases' inputs and the answers" in html
    assert "19 of 20 rows were judged by every scorer" in html


def test_the_page_puts_the_worst_case_first(report: Report) -> None:
    ids = re.findall(r"row-\d+", page(report))
    assert ids[0] == "row-0"
    assert int(ids[1].removeprefix("row-")) % 2 == 0


def test_without_content_no_output_quotes_a_case(report: Report, tmp_path: Path) -> None:
    bare = Report(report.suites, report.started, report.duration_s, content=False)
    write_json(bare, tmp_path / "report.json")
    told = page(bare) + junit(bare) + table(bare) + (tmp_path / "report.json").read_text(encoding="utf-8")
    assert "private" not in told
    assert "ValueError" in told
    assert "private" in page(report)


def test_the_json_holds_every_row_and_the_verdict(report: Report, tmp_path: Path) -> None:
    write_json(report, tmp_path / "new" / "report.json")
    told = json.loads((tmp_path / "new" / "report.json").read_text(encoding="utf-8"))
    assert (told["outcome"], told["exit_code"]) == ("fail", 1)
    assert len(told["suites"][0]["rows"]) == 20
    assert told["suites"][0]["figures"][0]["estimate"]["n"] == 19


def test_the_table_says_figure_interval_coverage_and_verdict(report: Report) -> None:
    text = table(report)
    assert re.search(r"contains +0\.526 +\[0\.317, 0\.727\] +19/20 +1", text)
    assert "FAIL          contains >= 0.9" in text
    assert text.endswith("s)")


def test_the_line_that_counts_is_for_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, hidden = Terminal(), io.StringIO()
    for stream in (shown, hidden):
        with Meter("chat", stream) as progress:
            progress(3, 12)
    assert "chat: 3/12 cases" in shown.getvalue()
    assert hidden.getvalue() == ""


def test_the_line_shows_money_rate_time_left_and_kept_answers() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, now = Terminal(), [100.0]
    with Meter("chat", shown, clock=lambda: now[0]) as progress:
        progress.watch(lambda: Spend(10**12, 2 * 10**11, 5 * 10**10, kept=20))
        now[0] += 10
        progress(120, 1000)
        progress(121, 1000)
    assert "chat: 120/1000 cases, 0.25 of 1.00 USD, 10.0/s, 1:28 left, 20 kept\x1b[K" in shown.getvalue()
    assert "121/1000" not in shown.getvalue(), "drawn again within a tenth of a second"


def test_the_line_does_not_foresee_from_kept_answers_alone() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown, now = Terminal(), [0.0]
    with Meter("chat", shown, clock=lambda: now[0]) as progress:
        progress.watch(lambda: Spend(kept=50))
        now[0] = 0.5
        progress(50, 100)
    assert "chat: 50/100 cases, 50 kept\x1b[K" in shown.getvalue()


def test_a_figure_its_interval_and_its_threshold_share_one_line(report: Report) -> None:
    suite = report.suites[0]
    placed = scale(suite.figures[0], suite.thresholds)
    assert placed is not None
    assert placed.ticks == (90.0,)
    assert placed.low is not None
    assert placed.low < placed.value < placed.low + (placed.width or 0)


def full(content: bool = True) -> Report:
    """Return a run of which everything that any output shows is known."""
    rows = [{"id": f"row-{i}", "input": i, "expected": str(i)} for i in range(20)]
    turn = iter(range(1000))

    def wavering(value: int) -> str:
        if value == 0:
            raise ValueError("no")
        return str(value) if value % 2 or next(turn) % 2 else "wrong"

    (suite,) = evals.run(wavering, rows, ["exact"], repeats=2, k={"exact": 2}, name="bot").suites
    (figure,) = suite.figures
    assert figure.estimate is not None
    told = replace(
        suite,
        figures=(replace(figure, uncorrected=replace(figure.estimate, value=0.987)),),
        judges=(
            JudgeMark("exact", "judge-1", False, "never held against people"),
            JudgeMark("other", "judge-2", True, "kappa 0.81"),
        ),
        split="test",
        held_out=True,
        looks=3,
        releases=("0123456789ab",),
        spend=Spend(cap_pico_usd=10**12, scorers_pico_usd=25 * 10**10, calls=7),
        planned_rows=90,
    )
    return Report((told,), datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), 1.0, content=content)


def plain(text: str) -> str:
    return unescape(text).replace("\n", " ")


@pytest.mark.parametrize("shown", [page, markdown, junit])
def test_every_output_says_what_the_figures_are_to_be_read_with(shown: Callable[[Report], str]) -> None:
    told = plain(shown(full()))
    for words in (
        "exact was given by judge-1, which nobody has held against people's verdicts",
        "kappa 0.81",
        "the judge alone says 0.987",
        "whatever the 2 unscored rows are worth",
        "stopped when decided, after 40 of 90 rows",
        "of the cases waver",
        "exact pass@2",
        "split test; held out, looked at 3 times; release 0123456789ab",
        "$0.25 judges",
    ):
        assert words in told


def test_the_table_says_what_the_figures_are_to_be_read_with() -> None:
    told = table(full())
    for words in (
        "NOT CALIBRATED judge of exact",
        "without 0.987",
        "stopped when decided, after 40 of 90 rows",
        "of the cases waver",
        "exact pass@2",
        "release 0123456789ab",
        "$0.25 judges",
    ):
        assert words in told


_AMOUNT, _COUNT = r"[0-9]+(\.[0-9]+)?", r"[0-9]+"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_RESULT: tuple[dict[str, str], set[str], list[str], str] = ({"message": ".*", "type": ".*"}, set(), [], "")
SCHEMA: dict[str, tuple[dict[str, str], set[str], list[str], str]] = {
    "testsuites": (
        {"name": ".*", "time": _AMOUNT, "tests": _COUNT, "failures": _COUNT, "errors": _COUNT},
        set(),
        ["testsuite"],
        "",
    ),
    "testsuite": (
        {
            "name": ".+",
            "tests": _COUNT,
            "failures": _COUNT,
            "errors": _COUNT,
            "skipped": _COUNT,
            "time": _AMOUNT,
            "timestamp": _TIME,
        },
        {"name", "tests", "failures", "errors"},
        ["properties", "testcase", "system-out", "system-err"],
        "properties",
    ),
    "properties": ({}, set(), ["property"], ""),
    "property": ({"name": ".+", "value": ".*"}, {"name", "value"}, [], ""),
    "testcase": (
        {"name": ".+", "classname": ".+", "time": _AMOUNT},
        {"name", "classname"},
        ["skipped", "error", "failure", "system-out", "system-err"],
        "",
    ),
    **dict.fromkeys(("skipped", "error", "failure"), _RESULT),
    "system-out": ({}, set(), [], ""),
}
"""By element: attributes with their pattern, those that must be there, children in their order, and the child
that comes once at most. These are the rules of the Jenkins xUnit plugin's junit-10.xsd, with the timestamp as
in Ant's JUnit.xsd, which knows no offset from UTC."""


def breaches(element: ElementTree.Element) -> list[str]:
    attributes, needed, children, once = SCHEMA[element.tag]
    found = [f"{element.tag} lacks {name}" for name in needed - set(element.keys())]
    for name, value in element.items():
        if not re.fullmatch(attributes.get(name, "(?!)"), value, re.DOTALL):
            found.append(f"{element.tag} has {name}={value!r}")
    order = [children.index(child.tag) if child.tag in children else -1 for child in element]
    if -1 in order or order != sorted(order) or order.count(0) > 1 and once:
        found.append(f"{element.tag} has {[child.tag for child in element]}")
    return found + [breach for child in element for breach in breaches(child)]


def test_junit_keeps_to_its_schema(report: Report) -> None:
    def down(value: int) -> str:
        raise APIConnectionError(NASTY)

    unreached = evals.run(down, [{"input": 1}], ["exact"], name=NASTY)
    for one in (report, full(), full(content=False), unreached):
        assert breaches(ElementTree.fromstring(junit(one))) == []
