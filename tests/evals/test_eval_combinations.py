"""Options of `trilith eval run` and keys of a suite, several at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trilith.cli import main

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

HEAD = "suites:\n"
SUITE = """\
  - name: {name}
    target: {{model: tiny}}
    data: cases.jsonl
    max_retries: 0
    {keys}
"""
EXACT = "scorers: [{scorer: exact, k: 2}]\n    repeats: 3\n    fields: {tags: [kind]}"
JUDGED = (
    "scorers: [{scorer: exact}, {scorer: judge, name: fine, params: {model: judge, rubric: It is right.}}]"
    "\n    repeats: 2\n    fields: {tags: [kind]}"
)

Run = Callable[..., tuple[int, str]]


def file(*suites: tuple[str, str]) -> None:
    text = HEAD + "".join(SUITE.format(name=name, keys=keys) for name, keys in suites)
    Path("evals.yaml").write_text(text, encoding="utf-8")


def cases(count: int = 40, **more: Any) -> None:
    rows = [
        {"id": n, "input": f"q{n}", "expected": f"q{n}", "kind": "odd" if n % 2 else "ev\u00e9n", **more}
        for n in range(count)
    ]
    Path("cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def told(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(path).read_text("utf-8"))["suites"]
    return found


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    language_server: LanguageServer,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.chdir(tmp_path)
    cases()

    def answer(question: str) -> str:
        return json.dumps({"reasons": "so", "verdict": "yes"}) if "right" in question else question

    language_server.answer = answer

    def command(*options: str) -> tuple[int, str]:
        code = main(
            ["eval", "run", "evals.yaml", "--base-url", language_server.url, "--api-key", "k", *options]
        )
        said = capsys.readouterr()
        return code, said.out + said.err

    return command


def test_repeats_slices_and_a_judge_are_all_held_against_the_run_before(run: Run) -> None:
    file(("all", JUDGED))
    assert run("--save-as", "main")[0] == 0
    code, _ = run("--against", "main", "--json", "new.json")
    assert code == 0
    (suite,) = told("new.json")
    lines = {(line["metric"], line["slice"]): line["comparison"]["difference"] for line in suite["lines"]}
    slices = ("", "kind=ev\u00e9n", "kind=odd")
    assert set(lines) == {(metric, part) for metric in ("exact", "fine") for part in slices}
    assert lines["fine", ""]["n"] == 40


def test_pass_at_k_of_a_slice_is_gated_against_the_run_before(run: Run) -> None:
    file(("all", EXACT))
    assert run("--save-as", "main")[0] == 0
    gate = "\n    gates: [{metric: exact pass@2, not_worse_by: 0, slice: kind}]"
    file(("all", EXACT + gate))
    code, said = run("--against", "main")
    assert code == 0
    assert "exact pass@2 [kind=ev\u00e9n] is not worse by more than 0" in said


def test_a_cache_keeps_the_repeats_apart(run: Run, language_server: LanguageServer) -> None:
    file(("all", EXACT))
    said: list[str] = []

    def wavering(question: str) -> str:
        said.append(question)
        return question if said.count(question) == 1 else "another"

    language_server.answer = wavering
    run("--cache", "kept", "--json", "one.json")
    asked = len(language_server.requests)
    run("--cache", "kept", "--json", "two.json")
    assert (asked, len(language_server.requests)) == (120, 120)
    one, two = told("one.json")[0], told("two.json")[0]
    assert one["figures"][0]["estimate"] == two["figures"][0]["estimate"]
    assert one["figures"][0]["estimate"]["value"] == pytest.approx(1 / 3)


def test_of_two_suites_one_that_could_not_run_leaves_the_others_verdict_and_keeps_nothing(run: Run) -> None:
    good = "scorers: [{scorer: exact}]"
    file(("first", good), ("second", good))
    assert run("--save-as", "main")[0] == 0
    capped = f"{good}\n    max_cost_usd: 0.01\n    max_call_cost_usd: 0.02"
    file(("first", capped), ("second", good))
    code, said = run("--against", "main", "--save-as", "new", "--json", "new.json")
    assert code == 3
    assert "the cost cap of 0.01 USD is reached" in said
    assert "not kept as new: the run was given up" in said
    assert [suite["outcome"] for suite in told("new.json")] == ["could not run", "pass"]


def test_a_run_that_stops_at_its_cap_before_it_is_decided_could_not_run(run: Run) -> None:
    keys = "scorers: [{scorer: exact}]\n    stop_early: true\n    gates: [{metric: exact, min: 0.9}]"
    file(("all", keys + "\n    max_call_cost_usd: 0.01"))
    code, said = run("--max-cost", "0.05")
    assert code == 3
    assert "COULD NOT RUN" in said


def test_a_limit_of_held_out_cases_counts_as_a_look_at_them(run: Run) -> None:
    assert main(["eval", "dataset", "split", "cases.jsonl", "dev=0.5", "test=0.5", "--held-out", "test"]) == 0
    file(("all", "scorers: [{scorer: exact}]\n    split: test\n    limit: 4"))
    run()
    _, said = run()
    assert "4 cases" in said
    assert "split test; held out, looked at 2 times" in said


def test_a_run_without_content_is_compared_as_well_as_one_with_it(run: Run) -> None:
    file(("all", EXACT))
    assert run("--json", "old.json", "--no-content")[0] == 0
    code, said = run("--against", "old.json", "--no-content", "--json", "new.json", "--report", "new.html")
    assert code == 0
    assert "over 40 cases" in said
    assert '"q7"' not in Path("new.json").read_text("utf-8")
    assert main(["eval", "report", "new.json", "--against", "old.json", "--html", "changed.html"]) == 0


def test_a_journal_of_a_suite_that_has_changed_is_refused(run: Run) -> None:
    file(("all", "scorers: [{scorer: exact}]"))
    assert run("--journal", "kept.jsonl")[0] == 0
    file(("all", "scorers: [{scorer: contains}]"))
    code, said = run("--journal", "kept.jsonl")
    assert code == 3
    assert "the journal kept.jsonl is of another suite" in said


def test_windows_line_ends_blank_lines_and_a_mark_of_byte_order_are_no_part_of_a_case(run: Run) -> None:
    text = '{"id": "\u00fc", "input": "a", "expected": "a"}\r\n\r\n{"id": 2.5, "input": "b", "expected": "b"}'
    Path("cases.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    file(("all", "scorers: [{scorer: exact}]"))
    code, _ = run("--json", "out.json")
    assert code == 0
    assert {row["id"] for row in told("out.json")[0]["rows"]} == {"\u00fc", "2.5"}


@pytest.mark.parametrize(
    ("bound", "code"),
    [("min: 0", 0), ("max: 0", 1), ("min: 0, on: interval", 0), ("max: 1, on: interval", 0)],
)
def test_one_case_and_a_bound_at_the_end_of_the_scale_have_a_verdict(run: Run, bound: str, code: int) -> None:
    cases(1)
    file(("all", f"scorers: [{{scorer: exact}}]\n    thresholds: [{{metric: exact, {bound}}}]"))
    assert run()[0] == code


def test_one_case_against_itself_is_no_evidence(run: Run) -> None:
    cases(1)
    file(("all", "scorers: [{scorer: exact}]"))
    assert run("--save-as", "main")[0] == 0
    code, said = run("--against", "main")
    assert code == 2
    assert "no evidence: +0 over 1 cases" in said


def test_a_given_up_suite_is_not_kept_beside_one_that_failed(
    run: Run, language_server: LanguageServer
) -> None:
    good = "scorers: [{scorer: exact}]"
    capped = f"{good}\n    max_cost_usd: 0.01\n    max_call_cost_usd: 0.02"
    file(("first", capped), ("second", good + "\n    thresholds: [{metric: exact, min: 0.9}]"))
    language_server.answer = lambda question: "no"
    code, said = run("--save-as", "main")
    assert (code, "not kept as main: the run was given up" in said) == (1, True)
    assert not Path(".trilith/evals/runs").exists()
