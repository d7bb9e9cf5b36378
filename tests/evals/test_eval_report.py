"""A recorded run can be shown again, and held against another one row by row."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith import cli
from trilith.errors import DataError
from trilith_evals import archive
from trilith_evals.dataset import Columns
from trilith_evals.output.difference import Change, changes, words
from trilith_evals.output.file import write_json
from trilith_evals.output.page import page
from trilith_evals.output.telling import flaky, money
from trilith_evals.report import JudgeMark, Spend

ROWS = [
    {"id": f"q-{i}", "input": f"capital {i}?", "expected": f"city {i}", "lang": "de" if i % 3 else "en"}
    for i in range(30)
]


def judged(wrong: set[int], failing: frozenset[int] = frozenset(), repeats: int = 1) -> evals.Report:
    def target(question: str) -> str:
        number = int(question.split()[1][:-1])
        if number in failing:
            raise ValueError(f"private trouble with {number}")
        return f"perhaps <b>town</b> {number}" if number in wrong else f"surely city {number}"

    return evals.run(
        target,
        ROWS,
        ["contains", "latency"],
        name="capitals",
        columns=Columns(tags=("lang",)),
        thresholds=[evals.Threshold("contains", min=0.5)],
        repeats=repeats,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    write_json(judged({1, 2, 3}), folder / "main.json")
    write_json(judged({3, 4}, failing=frozenset({5})), folder / "new.json")
    return folder / "main.json", folder / "new.json"


def changed(runs: tuple[Path, Path]) -> dict[str, Change]:
    before, after = (archive.read(path).suites[0] for path in runs)
    return {change.after.case.id: change for change in changes(before, after) if change.kinds}


def test_a_run_read_back_says_what_was_written() -> None:
    report = judged({1}, failing=frozenset({2}), repeats=2)
    suite = replace(
        report.suites[0],
        spend=Spend(cap_pico_usd=10**12, target_pico_usd=5),
        judges=(JudgeMark("contains", "judge-1", False),),
        slices=(replace(report.suites[0].figures[0], slice="lang=de"),),
    )
    told = replace(report, suites=(suite,)).to_json()
    assert archive.report(json.loads(json.dumps(told))).to_json() == told


def test_a_run_without_content_stays_without() -> None:
    told = replace(judged({1}, failing=frozenset({2})), content=False).to_json()
    again = archive.report(told)
    assert again.to_json() == told
    assert "private" not in page(again)


@pytest.mark.parametrize(
    "told", [[], {}, {"suites": [{}]}, {"suites": 3}, {"suites": [{"figures": [1], "rows": []}]}]
)
def test_what_is_no_report_is_refused(told: object) -> None:
    with pytest.raises(DataError, match="is no report of a run"):
        archive.report(told)


def test_a_row_is_better_worse_or_of_another_state(runs: tuple[Path, Path]) -> None:
    found = changed(runs)
    assert {case: next(iter(change.kinds)) for case, change in found.items()} == {
        "q-1": "better",
        "q-2": "better",
        "q-4": "worse",
        "q-5": "state",
    }
    assert found["q-5"].moves[0].text == "1 → unscored"


def test_what_got_worse_comes_first(runs: tuple[Path, Path]) -> None:
    assert list(changed(runs)) == ["q-4", "q-5", "q-1", "q-2"]


def test_of_an_error_less_is_better() -> None:
    rows = [{"id": i, "input": i, "expected": float(i)} for i in range(4)]
    near = evals.run(lambda value: value + 0.5, rows, ["mae"]).suites[0]
    far = evals.run(lambda value: value + 2.0, rows, ["mae"]).suites[0]
    assert {kind for change in changes(far, near) for kind in change.kinds} == {"better"}


def test_changed_words_are_marked_on_both_sides() -> None:
    left, right = words("It is Paris, surely.", "It is Rome, surely.")
    assert [text for marked, text in left if marked] == ["Paris"]
    assert [text for marked, text in right if marked] == ["Rome"]
    assert "".join(text for _, text in left) == "It is Paris, surely."


def test_no_word_is_lost_in_any_pair_of_texts() -> None:
    draw = random.Random(7)
    for _ in range(200):
        a, b = ("".join(draw.choices("ab <&\n\u00e9.", k=draw.randrange(12))) for _ in range(2))
        left, right = words(a, b)
        assert ("".join(t for _, t in left), "".join(t for _, t in right)) == (a, b)


def test_the_command_writes_a_page_of_the_difference(runs: tuple[Path, Path], tmp_path: Path) -> None:
    before, after = runs
    out = tmp_path / "diff.html"
    assert cli.main(["eval", "report", str(after), "--against", str(before), "--html", str(out)]) == 0
    html = out.read_text("utf-8")
    assert "<b>town" not in html
    assert re.search(r"<del>(surely|city)[^<]*</del>", html)
    assert re.findall(r"(?:src|href)\s*=\s*\"(?!#)[^\"]*|url\(|@import|https?://|<script", html) == []


def test_the_command_shows_a_run_again(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", "report", str(runs[1])]) == 0
    assert "29 rows" in capsys.readouterr().out
    assert (
        cli.main(["eval", "report", str(runs[1]), "--html", str(tmp_path / "again.html"), "--no-content"])
        == 0
    )
    again = (tmp_path / "again.html").read_text("utf-8")
    assert "capital 4?" not in again
    assert "q-4" in again


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "report", str(tmp_path / "none.json")]) == 3
    assert "no such file" in capsys.readouterr().err


def test_the_page_warns_of_an_uncalibrated_judge_and_tells_spend_and_held_out() -> None:
    report = judged({1})
    suite = replace(
        report.suites[0],
        judges=(JudgeMark("contains", "judge-1", False),),
        spend=Spend(cap_pico_usd=2 * 10**12, target_pico_usd=10**10, unpriced=3),
        held_out=True,
    )
    html = page(replace(report, suites=(suite,)))
    assert "Uncalibrated judge." in html
    assert "$0.01 target" in html
    assert "cap $2.00" in html
    assert "3 without a price: the sum is too low" in html
    assert "held out" in html
    assert "Uncalibrated judge." not in page(report)


def test_money_is_written_to_the_last_place_that_counts() -> None:
    assert [money(n) for n in (0, 1, 10**12, 1_234_500_000_000_000)] == [
        "$0.00",
        "$0.000000000001",
        "$1.00",
        "$1,234.50",
    ]


def test_a_case_whose_repeats_differ_is_flaky() -> None:
    said = iter(["yes", "no", "yes", "yes"])
    rows = [{"id": i, "input": i, "expected": "yes"} for i in range(2)]
    report = evals.run(lambda _: next(said), rows, ["exact", "latency"], repeats=2, concurrency=1)
    assert flaky(report.suites[0]) == 1
    assert flaky(judged(set()).suites[0]) is None
