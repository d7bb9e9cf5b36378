"""From real data to a served model, on the real scikit-learn, MLflow and ONNX Runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from trilith.errors import BadRequestError, ContractViolation, DataError, IntegrityError
from trilith.seams import Call
from trilith_classical import OnnxPredictor, TrainingReport, training
from trilith_classical.upstream import PredictorUpstream

pytestmark = [
    # MLflow's own models use what SQLAlchemy 2.1 and Python deprecate; nothing of ours can change that.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def test_training_crowns_a_first_version_that_onnx_and_sklearn_agree_on(
    trained: tuple[Any, TrainingReport],
) -> None:
    workshop, report = trained
    champion = workshop.registry.resolve("bike-demand", "champion")
    assert (report.version, champion.version) == ("1", "1")
    manifest = json.loads((Path(champion.path) / "manifest.json").read_text(encoding="utf-8"))
    assert "parity" in json.dumps(manifest)


def test_the_same_data_and_settings_register_nothing_new(workshop: Any) -> None:
    assert workshop.train().version == "1"
    assert workshop.registry.resolve("bike-demand", "champion").version == "1"


def test_a_worse_challenger_is_not_crowned(workshop: Any) -> None:
    report = workshop.train(numeric=("yr",), categorical=("season",))
    assert report.version == "2"
    assert workshop.registry.resolve("bike-demand", "champion").version == "1"


def test_data_that_breaks_the_contract_trains_nothing(workshop: Any, bikes: pl.DataFrame) -> None:
    bikes.with_columns(hr=pl.lit(99, pl.Int64)).write_parquet(workshop.folder / "data.parquet")
    with pytest.raises(ContractViolation) as caught:
        workshop.train()
    assert any("hr" in violation for violation in caught.value.violations)
    assert workshop.registry.resolve("bike-demand", "champion").version == "1"


def test_a_changed_model_file_is_refused(workshop: Any) -> None:
    path = Path(workshop.registry.resolve("bike-demand", "champion").path) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError):
        OnnxPredictor(workshop.registry.resolve("bike-demand", "champion"))


def test_an_alias_that_does_not_exist_is_said_so(workshop: Any) -> None:
    with pytest.raises(DataError):
        workshop.registry.resolve("bike-demand", "nobody")


class TestServing:
    """The Open Inference Protocol on the trained model."""

    def test_rows_are_answered_in_order_and_the_id_comes_back(
        self, predictor: OnnxPredictor, bike_inputs: Any
    ) -> None:
        three = predictor.infer({"id": "42", "inputs": bike_inputs(3)})
        one = predictor.infer({"inputs": bike_inputs(1)})
        assert three["id"] == "42"
        assert three["outputs"][0]["shape"][0] == 3
        assert three["outputs"][0]["data"][0] == pytest.approx(one["outputs"][0]["data"][0])

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"hr": None}, "hr"),
            ({"hr": {"data": [1.5], "datatype": "FP64"}}, "hr"),
            ({"hr": {"data": ["noon"], "datatype": "BYTES"}}, "hr"),
            ({"hr": {"data": [1, 2]}}, "hr"),
            ({"hr": {"datatype": "INT65"}}, "INT65"),
        ],
    )
    def test_what_the_model_cannot_read_is_400_and_names_the_input(
        self, predictor: OnnxPredictor, bike_inputs: Any, change: dict[str, Any], said: str
    ) -> None:
        with pytest.raises((BadRequestError, DataError), match=said):
            predictor.infer({"inputs": bike_inputs(1, **change)})

    async def test_the_upstream_tells_how_many_rows_it_scored(
        self, predictor: OnnxPredictor, bike_inputs: Any
    ) -> None:
        upstream = PredictorUpstream("bike-demand", predictor)
        body = json.dumps({"inputs": bike_inputs(4)}).encode()
        reply = await upstream.send(Call("/v2/models/bike-demand/infer", body))
        assert (reply.status, reply.headers["x-trilith-rows"]) == (200, "4")

    async def test_a_bad_request_is_an_answer_and_not_a_crash(self, predictor: OnnxPredictor) -> None:
        upstream = PredictorUpstream("bike-demand", predictor)
        reply = await upstream.send(Call("/v2/models/bike-demand/infer", b'{"inputs": []}'))
        error = json.loads(b"".join([part async for part in reply.chunks()]))["error"]
        assert (reply.status, isinstance(error, str)) == (400, True)

    def test_a_classifier_answers_with_labels(self, classifier: OnnxPredictor) -> None:
        row = {
            "colour": ("BYTES", "red"),
            "large": ("BOOL", False),
            "count": ("INT64", 1),
            "weight": ("FP64", 0.5),
        }
        inputs = [
            {"name": name, "shape": [1], "datatype": datatype, "data": [value]}
            for name, (datatype, value) in row.items()
        ]
        assert classifier.infer({"inputs": inputs})["outputs"][0]["data"] == ["ripe"]


def test_a_small_table_is_fitted_with_one_thread_and_a_large_one_with_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sklearn.ensemble  # noqa: F401  # loads the OpenMP that is limited
    from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as effective

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    seen = []
    for rows in (14_000, 150_000, 10_000_000):
        with training._threads(rows):
            seen.append(effective())
    cores = effective()
    assert seen == [1, min(3, cores), min(4, cores)]
