"""The dataset of a suite, logged to a real MLflow store."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith_evals.tracked import mlflow_input

# MLflow 3.17 still uses what SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_a_dataset_is_logged_with_digest_source_and_part(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"id": f"c{i}", "input": f"q{i}", "expected": f"q{i}"}) + "\n" for i in range(30)
    )
    (tmp_path / "d.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "d.schema.yaml").write_text(
        "splits: {shares: {train: 0.6, test: 0.4}}\nheld_out: [test]\n", encoding="utf-8"
    )
    (suite,) = evals.run(str, tmp_path / "d.jsonl", ["exact"], split="test").suites
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = importlib.import_module("mlflow").tracking.MlflowClient(tracking_uri=uri)
    run = client.create_run(client.create_experiment("e", artifact_location=tmp_path.as_uri()))
    client.log_inputs(run.info.run_id, datasets=[mlflow_input(suite)])
    (logged,) = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("d.jsonl", suite.content_digest[:36])
    assert json.loads(logged.dataset.source) == {"uri": (tmp_path / "d.jsonl").as_uri()}
    assert json.loads(logged.dataset.profile)["looks"] == 1
    tags = {tag.key: tag.value for tag in logged.tags}
    assert tags == {"mlflow.data.context": "evaluation", "split": "test", "held_out": "true"}
    source = importlib.import_module("mlflow.data.sources").LocalArtifactDatasetSource
    assert Path(source.from_json(logged.dataset.source).load()).name == "d.jsonl"


def test_rows_in_memory_have_a_digest_and_no_place(tmp_path: Path) -> None:
    (suite,) = evals.run(str, [{"input": "x", "expected": "x"}], ["exact"]).suites
    found = mlflow_input(suite).dataset
    assert found.digest == suite.content_digest[:36]
    assert "uri" not in found.source
