"""What a run's digest covers of its scorers: their settings and their code."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import trilith_evals as evals
from trilith.errors import DataError
from trilith_evals import Case, Means, Output
from trilith_evals.provenance import provenance
from trilith_evals.scorer import AnyScorer, build

CASES = [{"id": "a", "input": "q", "expected": "q"}]


def ran(journal: Path, scorer: AnyScorer | str) -> None:
    evals.run(lambda question: question, CASES, [scorer], means=Means(journal=journal))


def test_other_settings_of_a_scorer_of_one_name_are_another_run(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    ran(journal, build("number", {"abs_tolerance": 0.1}))
    ran(journal, build("number", {"abs_tolerance": 0.1}))
    with pytest.raises(DataError, match="of another suite"):
        ran(journal, build("number", {"abs_tolerance": 0.2}))


def test_a_name_is_the_scorer_with_its_defaults(tmp_path: Path) -> None:
    ran(tmp_path / "j.jsonl", "exact")
    ran(tmp_path / "j.jsonl", build("exact", {}))


def loaded(path: Path, source: str) -> ModuleType:
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("scorer_of_theirs", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["scorer_of_theirs"] = module
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def test_a_changed_rule_of_others_is_another_run(tmp_path: Path) -> None:
    rule = "def rule(case, output):\n    return {}\n"
    journal, path = tmp_path / "j.jsonl", tmp_path / "scorer_of_theirs.py"
    try:
        ran(journal, loaded(path, rule.format("1")).rule)
        ran(journal, loaded(path, rule.format("1")).rule)
        with pytest.raises(DataError, match="of another suite"):
            ran(journal, loaded(path, rule.format("0")).rule)
    finally:
        del sys.modules["scorer_of_theirs"]


def test_a_file_that_a_setting_names_counts_by_its_content(tmp_path: Path) -> None:
    class Ruled:
        paths = ("file",)

        def __init__(self, file: str) -> None:
            self.file = file

        def __call__(self, case: Case, output: Output) -> float:
            return 1.0

    rules = tmp_path / "rules.txt"
    found = []
    for text in ("be kind", "be kind", "be brief"):
        rules.write_text(text, encoding="utf-8")
        found.append(provenance(Ruled(str(rules))))
    assert found[0] == found[1] != found[2]


async def test_what_a_scorer_opens_or_learns_is_no_setting() -> None:
    judge = build("judge", {"model": "m", "rubric": "It is so."})
    before = provenance(judge)
    judge.connect("http://127.0.0.1:1", "k")  # type: ignore[union-attr]
    judge._opened()  # type: ignore[union-attr]
    assert provenance(judge) == before
    await judge.aclose()  # type: ignore[union-attr]
    assert provenance(build("judge", {"model": "m", "rubric": "It is not so."})) != before


def test_it_is_the_same_in_every_process() -> None:
    told = (
        "import json\nfrom trilith_evals.provenance import provenance\n"
        "from trilith_evals.scorer import build\n"
        "print(json.dumps([provenance(build('exact', {})), provenance(build('regex', {'pattern': 'a|b'}))]))"
    )
    both = {subprocess.check_output([sys.executable, "-c", told], text=True) for _ in range(2)}
    assert len(both) == 1
    assert "a|b" in both.pop()
