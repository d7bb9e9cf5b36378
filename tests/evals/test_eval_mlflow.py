"""Reports in a real MLflow tracking store."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith.errors import APIConnectionError
from trilith_evals import contest, recorded
from trilith_evals.output.file import write_json
from trilith_evals.output.mlflow_log import EXPERIMENT, log
from trilith_evals.report import JudgeMark, Spend

# MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(scope="module")
def report() -> evals.Report:
    rows = [{"id": i, "input": i, "expected": str(i)} for i in range(4)]
    return evals.run(str, rows, ["exact"], name="numbers", thresholds=[evals.Threshold("exact", min=0.5)])


def test_a_suite_becomes_a_run_with_figures_interval_and_report(report: evals.Report, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = importlib.import_module("mlflow").tracking.MlflowClient(tracking_uri=uri)
    log(report, uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.data.metrics["exact"] == 1
    assert run.data.metrics["exact.low"] < 1
    assert run.data.params["data_digest"] == report.suites[0].digest
    assert run.data.tags["outcome"] == "pass"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "report.html",
        "report.json",
        "report.md",
    }
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("rows", report.suites[0].content_digest[:36])
    assert list(tmp_path.glob("artifacts/*/artifacts/report.json"))  # and not in the current folder


def test_slices_comparison_spend_and_marks_are_logged(report: evals.Report, tmp_path: Path) -> None:
    write_json(report, tmp_path / "run.json")
    recorded_run = recorded.read(tmp_path / "run.json")
    suite = replace(
        report.suites[0],
        slices=(replace(report.suites[0].figures[0], slice="lang=de"),),
        lines=tuple(contest.against(recorded_run, recorded_run)),
        baseline="main",
        spend=Spend(target_pico_usd=25 * 10**10),
        judges=(JudgeMark("exact", "judge-1", False),),
    )
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    log(replace(report, suites=(suite,)), uri)
    client = importlib.import_module("mlflow").tracking.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.data.metrics["exact.lang_de"] == 1
    assert run.data.metrics["exact.difference"] == 0
    assert run.data.metrics["spend.target_usd"] == 0.25
    assert run.data.tags["baseline"] == "main"
    assert run.data.tags["uncalibrated_judges"] == "exact"


def test_a_tracking_server_that_is_not_there_is_said_so(
    report: evals.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(APIConnectionError, match="did not take the report"):
        log(report, "http://127.0.0.1:9")
