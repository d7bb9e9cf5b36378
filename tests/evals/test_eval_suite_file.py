"""The suite file: what it says becomes suites, and what is wrong in it is said with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilith.errors import DataError, SettingsError
from trilith_evals.suite import Plan, read_plans

GOOD = """\
suites:
  - name: chat
    target: {model: smollm2}
    data: cases.jsonl
    fields: {input: question, expected: answers}
    parameters: {temperature: 0, max_tokens: 24}
    scorers:
      - {scorer: contains}
      - {scorer: recall, params: {k: 3}, name: found}
    thresholds:
      - {metric: found, min: 0.5, on: interval}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cases.jsonl").write_text('{"question": "Q?", "answers": ["A"]}\n', encoding="utf-8")
    return tmp_path


def read(folder: Path, text: str, *only: str) -> list[Plan]:
    (folder / "evals.yaml").write_text(text, encoding="utf-8")
    return read_plans(folder / "evals.yaml", only)


def test_a_suite_file_becomes_plans_with_data_and_scorers(folder: Path) -> None:
    (plan,) = read(folder, GOOD)
    assert list(plan.scorers) == ["contains", "found"]
    assert plan.data.cases[0].golds == ["A"]
    assert plan.settings.parameters == {"temperature": 0, "max_tokens": 24}
    assert plan.settings.thresholds[0].on == "interval"


def test_the_datasets_path_counts_from_the_suite_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert read(folder, GOOD)


def test_only_the_named_suites_are_read(folder: Path) -> None:
    second = GOOD.replace("suites:\n", "").replace("name: chat", "name: other")
    assert [p.settings.name for p in read(folder, GOOD + second, "other")] == ["other"]
    with pytest.raises(SettingsError, match="no suite 'third', expected one of chat, other"):
        read(folder, GOOD + second, "third")


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("data: cases", "dada: cases", r"evals\.yaml:4: suites\.0\.dada: is not a key that may stand here"),
        ("data: cases.jsonl", "data: c.jsonl", r"evals\.yaml:4: suites\.0\.data: 'c\.jsonl' is not a file"),
        (
            "smollm2}",
            "smollm2}\n    task: talk",
            r"evals\.yaml:4: .*task: found 'talk', expected 'chat', 'rag'",
        ),
        ("smollm2}", "smollm2}\n    limit: 0", r"evals\.yaml:4: .*limit: found 0, expected greater than"),
        ("name: chat", "name: chat\n    name: chat", r"evals\.yaml:3: .*name: this key stands twice"),
        ("contains}", "contain}", r"evals\.yaml:8: .*scorers\.0: scorer: 'contain' is not known"),
        ("{k: 3}", "{k: three}", r"evals\.yaml:9: .*scorers\.1: params\.k is 'three': .*integer"),
        ("{k: 3}", "{kk: 3}", r"evals\.yaml:9: .*params\.kk: .* does not take it, expected k, document"),
        ("{k: 3}", "{k: 0}", r"evals\.yaml:9: .*k is 0, expected 1 or more"),
        ("recall, params: {k: 3}, name: found", "contains", r"evals\.yaml:9: .*a second time"),
        (
            "metric: found",
            "metric: lost",
            r"evals\.yaml:11: .*'lost' is not measured here, .* found",
        ),
        ("min: 0.5, ", "", r"evals\.yaml:11: .*thresholds\.0: expected min, max, or both"),
        ("    target: {model: smollm2}\n", "", r"evals\.yaml:2: suites\.0\.target: is missing"),
        ("max_tokens: 24", "max_token: 24", r"evals\.yaml:6: .*parameters\.max_token: .* max_tokens"),
        ("parameters", "task: rag\n    system: be brief\n    parameters", r"system is for the task chat"),
    ],
)
def test_a_wrong_file_is_refused_with_line_key_and_expectation(
    folder: Path, good: str, bad: str, message: str
) -> None:
    assert good in GOOD
    with pytest.raises(SettingsError, match=message):
        read(folder, GOOD.replace(good, bad))


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        read(folder, GOOD.replace("data: ", "dada: ").replace("on: interval", "on: bound"))
    assert "dada" in str(refused.value)
    assert "'bound'" in str(refused.value)


def test_a_wrong_dataset_names_its_suite_and_its_line(folder: Path) -> None:
    with pytest.raises(DataError, match=r"suite chat: .*cases\.jsonl:1: no column 'q'"):
        read(folder, GOOD.replace("input: question", "input: q"))


def test_the_demos_suite_file_is_right() -> None:
    demo = Path(__file__).parents[2] / "examples" / "demo" / "evals.yaml"
    assert [plan.settings.task for plan in read_plans(demo)] == ["chat", "rag", "predictor"]
