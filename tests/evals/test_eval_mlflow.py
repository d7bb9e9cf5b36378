"""Reports in a real MLflow tracking store."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith.errors import APIConnectionError
from trilith_evals.output.mlflow_log import EXPERIMENT, log

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
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.json"]
    assert list(tmp_path.glob("artifacts/*/artifacts/report.json"))  # and not in the current folder


def test_a_tracking_server_that_is_not_there_is_said_so(
    report: evals.Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(APIConnectionError, match="did not take the report"):
        log(report, "http://127.0.0.1:9")
