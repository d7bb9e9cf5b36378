"""What `trilith eval run` does with bad data, judges and targets: a stated verdict, and what it rests on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trilith.cli import main
from trilith_evals import scorer

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

SUITE = """\
suites:
  - name: echo
    target: {{model: tiny}}
    data: cases.jsonl
    concurrency: 1
    max_retries: 0
    scorers: [{scorers}]
    thresholds: [{{metric: {metric}, min: 0.9}}]
"""
JUDGE = "scorer: judge, name: fine, params: {model: judge, rubric: It is right.}"
NAN = """
def gap():
    def gap(case, output):
        return float("nan") if case.id == "c7" else 1.0
    return gap
"""

Run = Callable[..., tuple[int, str]]


def rows(count: int = 100) -> list[dict[str, Any]]:
    return [{"id": f"c{at}", "input": f"q{at}", "expected": f"q{at}"} for at in range(count)]


def written(given: list[dict[str, Any]]) -> None:
    Path("cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")


def suite(scorers: str = "{scorer: exact}", metric: str = "exact") -> None:
    Path("evals.yaml").write_text(SUITE.format(scorers=scorers, metric=metric), encoding="utf-8")


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language_server: LanguageServer,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.chdir(tmp_path)
    suite()
    written(rows())

    def command(*options: str) -> tuple[int, str]:
        code = main(
            ["eval", "run", "evals.yaml", "--base-url", language_server.url, "--api-key", "k", *options]
        )
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_a_missing_column_is_named_with_those_that_there_are(
    run: Run, language_server: LanguageServer
) -> None:
    written([{"question": "q", "expected": "q"}])
    assert run() == (
        3,
        "trilith eval: suite echo: cases.jsonl:1: no column 'input', expected it among the columns "
        "question, expected\n",
    )
    assert not language_server.requests


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_dataset_is_refused(run: Run, text: str) -> None:
    Path("cases.jsonl").write_text(text, encoding="utf-8")
    assert run() == (3, "trilith eval: suite echo: cases.jsonl: no rows, expected at least one case\n")


def test_duplicate_ids_are_named_with_both_lines_and_a_number_is_its_text(run: Run) -> None:
    written([*rows(2), {"id": 7, "input": "a"}, {"id": "7", "input": "b"}])
    code, said = run()
    assert code == 3
    assert "cases.jsonl:4: the id '7' stands twice (line 3); expected every id once" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"input": NaN}', "the column 'input' is nan, expected a finite number or null"),
        ('{"input": 3}', "the input (input) is a number, expected a question as text, or messages"),
        ('{"input": null}', "the input (input) is null, expected a question as text, or messages"),
        ('{"input": [3]}', "the input (input) is a list with a number, expected messages"),
        ('{"input": ' + "9" * 5000 + "}", "a number has thousands of digits"),
        ('{"input": ' + "[" * 99_999 + "]" * 99_999 + "}", "nested too deep"),
    ],
)
def test_what_no_model_can_be_asked_is_refused_by_its_line_before_anything_is_paid(
    run: Run, language_server: LanguageServer, line: str, said: str
) -> None:
    with Path("cases.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    code, told = run()
    assert code == 3
    assert "cases.jsonl:101: " in told
    assert said in told
    assert not language_server.requests


@pytest.fixture
def _nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A scorer of another distribution that gives NaN for one case."""
    (tmp_path / "gaps.py").write_text(NAN, encoding="utf-8")
    info = tmp_path / "gaps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gaps\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[trilith.scorers]\ngap = gaps:gap\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    scorer._foreign.cache_clear()
    yield
    scorer._foreign.cache_clear()
    sys.modules.pop("gaps", None)


@pytest.mark.usefixtures("_nan")
def test_a_nan_score_is_unscored_and_the_verdict_says_what_the_mean_may_be(run: Run) -> None:
    suite("{scorer: gap}", "gap")
    code, said = run("--json", "out.json")
    assert code == 0
    assert "99 of 100 rows for every metric; with the unscored ones gap lies from 0.990 to 1.00" in said
    figure = json.loads(Path("out.json").read_text("utf-8"))["suites"][0]["figures"][0]
    assert (figure["scored"], figure["reasons"]) == (99, {"the scorer gave nan": 1})


@pytest.mark.usefixtures("_nan")
def test_nan_scores_in_too_many_rows_fail_the_coverage(run: Run) -> None:
    written([row for row in rows() if row["id"] in ("c7", "c8")])
    suite("{scorer: gap}", "gap")
    code, said = run()
    assert code == 1
    assert "gap coverage >= 0.95: 1 of 2 rows; unscored: the scorer gave nan (1)" in said


def test_a_nan_in_the_run_before_is_refused_before_anything_is_asked(
    run: Run, language_server: LanguageServer
) -> None:
    assert run("--json", "old.json")[0] == 0
    asked = len(language_server.requests)
    old = json.loads(Path("old.json").read_text("utf-8"))
    old["suites"][0]["rows"][0]["scores"]["exact"]["value"] = float("nan")
    Path("old.json").write_text(json.dumps(old), encoding="utf-8")
    code, said = run("--against", "old.json")
    assert code == 3
    assert "old.json: the case" in said
    assert "has the score nan under exact, expected a number" in said
    assert len(language_server.requests) == asked


def judging(server: LanguageServer, reply: str) -> None:
    """Let the model `judge` say this, and any other one the question."""

    def answer(question: str) -> str:
        return reply if server.requests[-1]["model"] == "judge" else question

    server.answer = answer


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("Bananas are yellow.", "the judge's reply was not JSON"),
        ("I am sorry, I cannot help with that.", "the judge's reply was not JSON"),
        ('{"reasons": "because", "verdict": "purple"}', "the judge's verdict was not on the scale"),
        ("", "the judge's reply was empty"),
    ],
)
def test_a_judge_that_answers_nonsense_or_refuses_gives_no_zero(
    run: Run, language_server: LanguageServer, reply: str, reason: str
) -> None:
    written(rows(3))
    suite(f"{{{JUDGE}}}", "fine")
    judging(language_server, reply)
    code, said = run("--json", "out.json")
    assert code != 0
    assert f"fine coverage >= 0.95: 0 of 3 rows; unscored: {reason} (3)" in said
    assert "NOT CALIBRATED judge of fine" in said
    figure = json.loads(Path("out.json").read_text("utf-8"))["suites"][0]["figures"][0]
    assert (figure["estimate"], figure["unscored"]) == (None, 3)


def broken(ids: set[str], error: type[Exception] = RuntimeError) -> Callable[[str], str]:
    def answer(question: str) -> str:
        if question in ids:
            raise error("out of memory")
        return question

    return answer


def test_a_target_that_fails_on_three_of_a_hundred_cases_passes_and_says_so(
    run: Run, language_server: LanguageServer
) -> None:
    language_server.answer = broken({"q10", "q50", "q90"})
    code, said = run()
    assert code == 0
    assert "at least 97 of 100 rows for every metric" in said
    assert "with the unscored ones exact lies from 0.970 to 1.00" in said
    assert "exact >= 0.9: 1.00 [0.962, 1.00] over 97 rows" in said


def test_a_target_that_fails_on_three_cases_where_two_may_be_missing_could_not_be_run(
    run: Run, language_server: LanguageServer
) -> None:
    text = Path("evals.yaml").read_text("utf-8")
    Path("evals.yaml").write_text(text + "    min_coverage: 0.98\n", encoding="utf-8")
    language_server.answer = broken({"q10", "q50", "q90"})
    code, said = run()
    assert code == 3
    assert "97 of 100 rows; unscored: InternalServerError 500 (3)" in said
    assert "for example   c10: InternalServerError 500: " in said
    assert "out of memory" in said
    assert "out of memory" not in run("--no-content")[1]


def test_a_changed_dataset_is_compared_on_what_stayed_and_the_verdict_says_so(run: Run) -> None:
    assert run("--save-as", "main")[0] == 0
    changed = rows()
    changed[0]["input"] = changed[0]["expected"] = "another question"
    written(changed)
    code, said = run("--against", "main")
    assert code == 0
    assert "over 99 cases; the dataset has changed, 1 cases are no longer what they were" in said


def test_a_dataset_that_changed_in_most_cases_is_not_compared(run: Run) -> None:
    assert run("--save-as", "main")[0] == 0
    written([{**row, "input": "x" + row["input"], "expected": "x" + row["expected"]} for row in rows(90)])
    code, said = run("--against", "main")
    assert code == 3
    assert "against main: no metric has a case that is scored in both runs" in said


@pytest.mark.parametrize("option", ["--against", "--save-as"])
def test_an_empty_name_of_a_run_is_not_taken_for_none(
    run: Run, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit) as left:
        run(option, "")
    assert left.value.code == 3
    assert f"argument {option}: the name is empty" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "said"), [("..", "expected letters or digits"), ("x" * 300, "a shorter")])
def test_a_name_that_no_file_can_have_is_refused_before_anything_is_paid(
    run: Run, language_server: LanguageServer, name: str, said: str
) -> None:
    code, told = run("--save-as", name)
    assert code == 3
    assert said in told
    assert not language_server.requests


@pytest.mark.parametrize("amount", ["abc", "nan", "-1", "0", "Infinity"])
def test_a_cap_that_is_no_amount_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], amount: str
) -> None:
    with pytest.raises(SystemExit) as left:
        run(f"--max-cost={amount}")
    assert left.value.code == 3
    assert f"{amount} is not an amount of US dollars above 0" in capsys.readouterr().err


def test_a_margin_may_be_larger_than_one_as_it_is_in_the_metrics_unit(run: Run) -> None:
    written(rows(3))
    assert run("--json", "old.json")[0] == 0
    assert run("--against", "old.json", "--margin", "2.5")[0] == 0


def test_files_that_are_nested_too_deep_are_told_and_not_tripped_over(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("deep.json").write_text("[" * 99_999 + "]" * 99_999, encoding="utf-8")
    assert "deep.json is not JSON" in run("--against", "deep.json")[1]
    assert main(["eval", "report", "deep.json"]) == 3
    assert main(["eval", "compare", "deep.json", "deep.json"]) == 3


def test_a_cache_that_cannot_be_written_is_not_the_targets_fault(run: Run) -> None:
    code, said = run("--cache", "cases.jsonl")
    assert code == 3
    assert "cannot keep answers in cases.jsonl: not a directory; name a folder that can be written" in said


@pytest.mark.parametrize("option", [(), ("--fresh",)])
@pytest.mark.parametrize("text", ["no newline", "{}\n", '{"journal":' + "[" * 99_999 + "\n"])
def test_a_file_that_is_no_journal_is_left_as_it_is(run: Run, text: str, option: tuple[str, ...]) -> None:
    Path("notes").write_text(text, encoding="utf-8")
    code, said = run("--journal", "notes", *option)
    if option and "journal" in text:
        assert code == 0  # a damaged journal is what --fresh is for
        return
    assert (code, "notes is no journal of trilith eval" in said) == (3, True)
    assert Path("notes").read_text("utf-8") == text


@pytest.mark.parametrize(
    ("action", "text", "said"),
    [
        ("run", "suites: 3", "f.yaml:1: suites: found 3, expected a valid tuple"),
        ("calibrate", "judge: 3", "f.yaml:1: judge: found 3, expected a mapping"),
        ("monitor", "name: x", "f.yaml: sources: is missing"),
        ("monitor", "name: x\nsource: [a]", "f.yaml:2: source: is not a key that may stand here"),
    ],
)
def test_every_file_of_evaluation_is_refused_in_the_same_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, text: str, said: str
) -> None:
    (tmp_path / "f.yaml").write_text(text, encoding="utf-8")
    assert main(["eval", action, str(tmp_path / "f.yaml")]) == 3
    assert said in capsys.readouterr().err
