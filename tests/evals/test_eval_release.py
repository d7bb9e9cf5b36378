"""A suite may name the release that is judged; the report says which one answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.gateway import Gateway, Running
from support.scripted_server import Scripted, ScriptedServer

from trilith import AsyncClient
from trilith.cli import main
from trilith.errors import SettingsError
from trilith.settings.schema import Settings
from trilith.testing import MemoryPredictor, MemoryUpstream
from trilith_evals import Outcome, arun, run
from trilith_evals.suite import read_plans
from trilith_evals.target import ModelTarget

if TYPE_CHECKING:
    from evals.conftest import LanguageServer

ROWS = [{"id": f"c{i}", "input": f"question {i}", "expected": "candidate"} for i in range(6)]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """`support`, all of whose traffic goes to one release; its candidate has none."""
    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    models: dict[str, Any] = {
        "support": {**chat, "candidates": ["next"], "fallbacks": ["next"]},
        "next": {**chat, "upstream": {**chat["upstream"], "model": "b"}},  # type: ignore[dict-item]
    }
    settings = Settings.model_validate({"home": tmp_path / "home", "models": models})
    # The first call of the live release fails, and its fallback answers it.
    live = MemoryUpstream("live", fail_with=[503])
    with Running(settings, {"support": live, "next": MemoryUpstream("candidate")}) as running:
        yield running


def digest(gateway: Gateway, model: str) -> str:
    release = gateway.platform.releases.find(model)
    assert release is not None
    return release.digest


def judged(gateway: Gateway, target: str, **options: Any) -> Any:
    report = run(target, ROWS, ["exact"], base_url=gateway.url, api_key=gateway.token, **options)
    return report.suites[0]


def test_the_release_without_traffic_is_judged_and_named(gateway: Gateway) -> None:
    suite = judged(gateway, f"support@sha256:{digest(gateway, 'next')}")
    assert suite.figures[0].estimate.value == 1.0
    assert suite.releases == (digest(gateway, "next"),)
    assert suite.target == f"support@{digest(gateway, 'next')}"
    assert {row["release"] for row in gateway.ledger()} == {digest(gateway, "next")}


def test_rows_of_different_releases_are_not_added_up_unless_allowed(gateway: Gateway) -> None:
    suite = judged(gateway, "support", concurrency=1)
    assert suite.releases == tuple(sorted((digest(gateway, "next"), digest(gateway, "support"))))
    assert suite.outcome is Outcome.COULD_NOT_RUN
    (check,) = [check for check in suite.checks if check.name == "one release"]
    assert digest(gateway, "next") in check.message


def test_rows_of_different_releases_pass_where_that_is_allowed(gateway: Gateway) -> None:
    assert judged(gateway, "support", concurrency=1, several_releases=True).outcome is Outcome.PASS


def test_an_unknown_release_could_not_be_run(gateway: Gateway) -> None:
    suite = judged(gateway, "support@0123456789ab")
    assert suite.outcome is Outcome.COULD_NOT_RUN
    assert "may answer for the model 'support'" in suite.stopped.told(content=True)


def test_a_suite_file_names_the_release(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    suite = (
        "suites: [{name: s, target: {model: support, release: %r}, data: d.jsonl, scorers: [{scorer: exact}]"
    )
    suite += "}]"
    (tmp_path / "e.yaml").write_text(suite % f"sha256:{digest(gateway, 'next')}", encoding="utf-8")
    out = tmp_path / "out.json"
    options = ["--base-url", gateway.url, "--api-key", gateway.token, "--json", str(out)]
    assert main(["eval", "run", str(tmp_path / "e.yaml"), *options]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["suites"][0]["releases"] == [digest(gateway, "next")]
    told = capsys.readouterr().out
    assert f"support@{digest(gateway, 'next')}" in told
    assert f"\n  release {digest(gateway, 'next')}\n" in told
    (tmp_path / "e.yaml").write_text(suite % "newest", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"e\.yaml:1: suites\.0\.target\.release: found 'newest'"):
        read_plans(tmp_path / "e.yaml")


def test_a_server_that_knows_no_releases_is_not_taken_for_one(language_server: LanguageServer) -> None:
    report = run("m@0123456789ab", ROWS, ["exact"], base_url=language_server.url, api_key="k")
    stopped = report.suites[0].stopped
    assert report.outcome is Outcome.COULD_NOT_RUN
    assert stopped is not None
    assert "the server names no release, expected 0123456789ab" in stopped.told(content=True)


def test_a_predictors_release_is_asked_for_in_the_same_way(tmp_path: Path) -> None:
    predictor = {"kind": "predictor", "upstream": {"url": "http://127.0.0.1:9"}}
    models = {
        "demand": {**predictor, "candidates": ["demand-next"]},
        "demand-next": {**predictor, "registered_model": "d", "upstream": None},
    }
    settings = Settings.model_validate({"home": tmp_path / "home", "models": models})
    upstreams = {
        "demand": MemoryPredictor(lambda text: ("live", 0.9)),
        "demand-next": MemoryPredictor(lambda text: ("candidate", 0.9)),
    }
    with Running(settings, upstreams) as gateway:
        rows = [{"id": i, "input": {"text": f"t{i}"}, "expected": "candidate"} for i in range(3)]
        found = [
            run(target, rows, ["exact"], task="predictor", base_url=gateway.url, api_key=gateway.token)
            for target in ("demand", f"demand@{digest(gateway, 'demand-next')}")
        ]
    assert [report.suites[0].figures[0].estimate.value for report in found] == [0.0, 1.0]  # type: ignore[union-attr]


def prediction(version: str) -> dict[str, Any]:
    output = {"name": "y", "datatype": "FP64", "shape": [1], "data": [2.0]}
    return {"model_name": "demand", "model_version": version, "outputs": [output]}


async def of_version(server: ScriptedServer, version: str | None) -> Any:
    rows = [{"id": i, "input": {"hr": i}, "expected": 2.0} for i in range(3)]
    target = ModelTarget(AsyncClient(server.url, "k"), "demand", task="predictor", version=version)
    try:
        return (await arun(target, rows, ["number"])).suites[0]
    finally:
        await target.aclose()


async def test_a_predictors_version_is_asked_for_and_named() -> None:
    with ScriptedServer([Scripted(body=prediction("3"))]) as server:
        suite = await of_version(server, "3")
        assert {one.path for one in server.received} == {"/v2/models/demand/versions/3/infer"}
    assert (suite.target, suite.releases) == ("demand version 3", ("version 3",))
    assert suite.figures[0].estimate.value == 1.0


async def test_a_version_that_moves_in_a_run_is_told() -> None:
    with ScriptedServer([Scripted(body=prediction("3")), Scripted(body=prediction("4"))]) as server:
        suite = await of_version(server, None)
    assert suite.releases == ("version 3", "version 4")
    assert suite.outcome is Outcome.COULD_NOT_RUN


async def test_another_version_than_the_one_asked_for_is_refused() -> None:
    with ScriptedServer([Scripted(body=prediction("4"))]) as server:
        suite = await of_version(server, "3")
    assert "version 4 answered, expected version 3" in suite.stopped.told(content=True)
