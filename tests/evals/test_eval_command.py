"""`trilith eval run` against a server on loopback: the exit code is the verdict."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from trilith.cli import main

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

SUITE = """\
suites:
  - name: capitals
    target: {model: tiny}
    data: cases.jsonl
    system: Be brief.
    parameters: {temperature: 0, max_tokens: 8}
    scorers: [{scorer: contains}]
    thresholds: [{metric: contains, min: 0.9}]
"""
CAPITALS = {"France": "Paris", "Japan": "Tokyo", "Italy": "Rome"}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    rows = [{"id": c, "input": f"Capital of {c}?", "expected": a} for c, a in CAPITALS.items()]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(SUITE, encoding="utf-8")
    return tmp_path / "evals.yaml"


def right(question: str) -> str:
    return f"It is {CAPITALS[question.split()[-1].rstrip('?')]}."


def test_a_good_model_passes_and_everything_asked_for_is_written(
    suite: Path, language_server: LanguageServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    language_server.answer = right
    written = {name: tmp_path / f"out.{name}" for name in ("junit", "report", "json")}
    options = [part for name, path in written.items() for part in (f"--{name}", str(path))]
    code = main(["eval", "run", str(suite), "--base-url", language_server.url, "--api-key", "k", *options])
    assert code == 0
    assert "pass (exit code 0" in capsys.readouterr().out
    assert ElementTree.parse(written["junit"]).getroot().get("failures") == "0"
    assert "Be brief." not in written["report"].read_text(encoding="utf-8")
    assert json.loads(written["json"].read_text(encoding="utf-8"))["suites"][0]["usage"]["input_tokens"] == 15


def test_the_model_is_asked_as_the_suite_says(suite: Path, language_server: LanguageServer) -> None:
    language_server.answer = right
    main(["eval", "run", str(suite), "--base-url", language_server.url, "--api-key", "the-key"])
    asked = language_server.requests[0]
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("tiny", 0, 8)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert language_server.keys == {"Bearer the-key"}


def test_a_deliberately_bad_model_fails(suite: Path, language_server: LanguageServer) -> None:
    language_server.answer = lambda question: "I would rather talk about cats."
    assert main(["eval", "run", str(suite), "--base-url", language_server.url, "--api-key", "k"]) == 1


def test_an_unreachable_gateway_is_not_a_bad_model(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert main(["eval", "run", str(suite), "--base-url", url, "--api-key", "k"]) == 3
    assert "COULD NOT RUN: APIConnectionError" in capsys.readouterr().out


def test_a_server_that_breaks_down_is_not_a_bad_model(suite: Path, language_server: LanguageServer) -> None:
    def broken(question: str) -> str:
        raise RuntimeError("out of memory")

    language_server.answer = broken
    assert main(["eval", "run", str(suite), "--base-url", language_server.url, "--api-key", "k"]) == 3


def test_a_wrong_suite_file_leaves_with_three_and_its_line(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(SUITE.replace("data:", "dada:"), encoding="utf-8")
    assert main(["eval", "run", str(suite)]) == 3
    assert "evals.yaml:4: suites.0.dada" in capsys.readouterr().err


def test_wrong_usage_is_not_taken_for_missing_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["eval", "run", "evals.yaml", "--nonsense"])
    assert left.value.code == 3
