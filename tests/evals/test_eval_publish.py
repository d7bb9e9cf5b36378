"""Runs go to a real gateway, and come back from there to be shown and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, Running

from trilith.cli import main
from trilith.errors import TrilithError
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_evals import run
from trilith_evals.published import fetch, publish, suites_of

SUITE = """\
suites:
  - name: echoes
    target: {model: echo}
    data: cases.jsonl
    scorers: [{scorer: contains}]
    thresholds: [{metric: contains, min: 0.9}]
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    models = {"echo": {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}}
    settings = Settings.model_validate({"home": tmp_path / "home", "models": models})
    with Running(settings, {"echo": MemoryUpstream()}) as running:
        yield running


@pytest.fixture
def admin(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> str:
    token = gateway.mint(admin=True)
    monkeypatch.setenv("TRILITH_BASE_URL", f"{gateway.url}/v1")
    monkeypatch.setenv("TRILITH_API_KEY", token)
    return token


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    rows = [{"id": f"c{i}", "input": f"word {i}", "expected": f"word {i}"} for i in range(30)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(SUITE, encoding="utf-8")
    return tmp_path / "evals.yaml"


def kept(gateway: Gateway) -> list[dict[str, Any]]:
    return gateway.rows("select * from eval_runs order by at")


def test_a_published_run_is_what_the_json_file_has(
    suite: Path, gateway: Gateway, admin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "run", str(suite), "--publish", "--json", str(tmp_path / "run.json")]) == 0
    (row,) = kept(gateway)
    assert f"published as gateway:{row['id']}" in capsys.readouterr().out
    assert json.loads(row["run"]) == json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert json.loads(row["summary"])["suites"][0]["model"] == "echo"


def test_a_run_without_content_is_published_without(suite: Path, gateway: Gateway, admin: str) -> None:
    assert main(["eval", "run", str(suite), "--publish", "--no-content"]) == 0
    assert "word 3" not in kept(gateway)[0]["run"]


@pytest.mark.parametrize(("option", "code"), [("--publish", 0), ("--must-publish", 3)])
def test_an_upload_that_fails_is_told_and_counts_only_if_it_must(
    suite: Path, gateway: Gateway, option: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    key = gateway.mint()  # no admin's
    assert main(["eval", "run", str(suite), "--base-url", gateway.url, "--api-key", key, option]) == code
    told = capsys.readouterr()
    assert "the run was not published: This key may not ask under /admin" in told.err
    assert "pass (exit code 0" in told.out
    assert kept(gateway) == []


def test_a_failed_run_keeps_its_exit_code_when_it_is_published(
    suite: Path, gateway: Gateway, admin: str
) -> None:
    suite.write_text(SUITE.replace("contains", "exact"), encoding="utf-8")
    cases = suite.parent / "cases.jsonl"
    cases.write_text(cases.read_text("utf-8").replace('"expected": "word', '"expected": "other'), "utf-8")
    assert main(["eval", "run", str(suite), "--must-publish"]) == 1
    assert kept(gateway)[0]["outcome"] == "fail"


def test_a_published_run_is_shown_again_and_held_against_a_file(
    suite: Path, gateway: Gateway, admin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["eval", "run", str(suite), "--publish", "--json", str(tmp_path / "new.json")])
    named = f"gateway:{kept(gateway)[0]['id']}"
    page = tmp_path / "again.html"
    capsys.readouterr()
    assert main(["eval", "report", named, "--html", str(page)]) == 0
    assert "echoes" in page.read_text("utf-8")
    assert main(["eval", "report", str(tmp_path / "new.json"), "--against", named]) == 0
    assert main(["eval", "compare", named, str(tmp_path / "new.json")]) == 0
    assert "echoes: contains" in capsys.readouterr().out


def test_a_run_is_held_against_a_published_one_with_the_key_that_is_given(
    suite: Path, gateway: Gateway, tmp_path: Path
) -> None:
    given = ["--base-url", gateway.url, "--api-key", gateway.mint(admin=True)]
    main(["eval", "run", str(suite), "--publish", *given])
    named = f"gateway:{kept(gateway)[0]['id']}"
    out = tmp_path / "out.json"
    assert main(["eval", "run", str(suite), "--against", named, "--json", str(out), *given]) == 0
    found = json.loads(out.read_text("utf-8"))["suites"][0]
    assert (found["baseline"], found["lines"][0]["check"]["outcome"]) == (named, "pass")


@pytest.mark.parametrize("id", ["evalrun_" + "0" * 32, "../../v1/models", ""])
def test_a_run_that_is_not_there_could_not_be_read(
    gateway: Gateway, admin: str, id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "report", f"gateway:{id}"]) == 3
    assert "trilith eval: " in capsys.readouterr().err


def test_numbers_that_json_has_not_are_published_as_null(gateway: Gateway, admin: str) -> None:
    report = run(
        lambda given: "a\ud800", [{"id": "a", "input": "x", "expected": "a\ud800"}], ["exact"], name="odd"
    )
    suite = replace(report.suites[0], parameters={"x": math.inf, "y": 2.0})
    named = f"gateway:{publish(replace(report, suites=(suite,)), None, None)}"
    told = fetch(named)["suites"][0]
    assert (told["parameters"], told["rows"][0]["output"]) == ({"x": None, "y": 2.0}, "a?")
    assert suites_of(named)["odd"].metrics["exact"].scores == {"a": 1.0}


def test_a_server_that_keeps_no_runs_is_told_as_such(gateway: Gateway, admin: str) -> None:
    from trilith_evals import published

    with pytest.raises(TrilithError, match="no such path"):
        published._call("GET", "/admin/v1/nothing", None, None, None)
