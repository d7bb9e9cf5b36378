"""`trilith eval run --against`: kept runs, found by name, by commit or by file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trilith.cli import main

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

SUITE = """\
suites:
  - name: sums
    target: {model: tiny}
    data: cases.jsonl
    fields: {tags: [kind]}
    scorers: [{scorer: exact}]
"""
GATES = "    gates: [{metric: exact, not_worse_by: 0.1}, {metric: exact, min: 0.5, slice: kind=odd}]\n"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [
        {"id": f"s{at}", "input": str(at), "expected": str(at), "kind": "odd" if at % 2 else "even"}
        for at in range(60)
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(SUITE + GATES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "evals.yaml"


def run(server: LanguageServer, *options: str) -> int:
    return main(["eval", "run", "evals.yaml", "--base-url", server.url, "--api-key", "k", *options])


def ungated(suite: Path) -> None:
    suite.write_text(SUITE, encoding="utf-8")


def test_a_run_is_kept_by_name_and_a_worse_one_held_against_it_fails(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ungated(suite)
    assert run(language_server, "--save-as", "feature/x") == 0
    assert Path(".trilith/evals/runs/sums/feature%2Fx.json").is_file()
    suite.write_text(SUITE + GATES, encoding="utf-8")
    assert run(language_server, "--against", "feature/x") == 0
    language_server.answer = lambda question: "0" if int(question) % 2 else question
    assert run(language_server, "--against", "feature/x", "--json", "new.json") == 1
    assert "worse slice   exact [kind=odd]" in capsys.readouterr().out
    (told,) = json.loads(Path("new.json").read_text("utf-8"))["suites"]
    assert (told["baseline"], len(told["lines"])) == ("feature/x", 3)


def test_a_run_that_is_not_there_is_told_before_anything_is_asked(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(language_server, "--against", "main") == 3
    assert "--save-as main" in capsys.readouterr().err
    assert not language_server.requests


def test_gates_against_the_run_before_want_one(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(language_server) == 3
    assert "add --against main" in capsys.readouterr().err
    assert not language_server.requests


def test_a_file_is_as_good_as_a_name(suite: Path, language_server: LanguageServer) -> None:
    ungated(suite)
    assert run(language_server, "--json", "before.json") == 0
    assert run(language_server, "--against", "before.json") == 0


def test_a_run_kept_under_its_commit_is_found_by_what_git_calls_it(
    suite: Path, language_server: LanguageServer
) -> None:
    for words in (["init", "-q", "-b", "trunk"], ["commit", "-q", "--allow-empty", "-m", "First"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)
    ungated(suite)
    assert run(language_server, "--save-as", "HEAD") == 0
    assert run(language_server, "--against", "trunk") == 0


def test_a_run_that_was_given_up_is_not_kept(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    ungated(suite)
    code = main(
        [
            "eval",
            "run",
            "evals.yaml",
            "--base-url",
            "http://127.0.0.1:9",
            "--api-key",
            "k",
            "--save-as",
            "main",
        ]
    )
    assert code == 3
    assert "not kept as main" in capsys.readouterr().err
    assert not Path(".trilith/evals/runs").exists()


def test_a_suite_may_stop_when_it_is_decided(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(
        SUITE + "    stop_early: true\n    gates: [{metric: exact, min: 0.9}]\n", encoding="utf-8"
    )
    language_server.answer = lambda question: "nonsense"
    assert run(language_server) == 1
    assert "stopped when decided, after 2" in capsys.readouterr().out
    assert len(language_server.requests) < 30


def test_a_suite_without_gates_cannot_stop_when_decided(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(SUITE + "    stop_early: true\n", encoding="utf-8")
    assert run(language_server) == 3
    assert "stop_early: stop_early needs gates to be decided" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("{metric: f1, min: 0.5}", "gates.0.metric: 'f1' is not measured here"),
        ("{metric: exact, min: 0.5, slice: kind=blue}", "no case has kind=blue, expected one of even, odd"),
        ("{metric: exact, min: 0.5, slice: colour}", "no case has the tag 'colour'"),
        ("{metric: exact}", "needs min and max, or not_worse_by, or better"),
    ],
)
def test_a_wrong_gate_is_refused_with_its_line(
    suite: Path, language_server: LanguageServer, capsys: pytest.CaptureFixture[str], gate: str, said: str
) -> None:
    suite.write_text(SUITE + f"    gates: [{gate}]\n", encoding="utf-8")
    assert run(language_server) == 3
    assert said in capsys.readouterr().err
    assert not language_server.requests
