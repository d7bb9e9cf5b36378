"""A slice of the real bike data, models trained on it once for the whole folder, and copies to spoil."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from trilith.settings.schema import TrainingSettings
from trilith_classical import OnnxPredictor, TrainingReport, train
from trilith_classical.registry import MlflowRegistry

DEMO = Path(__file__).parents[2] / "examples" / "demo"
NUMERIC = ("yr", "mnth", "hr", "weekday", "holiday", "workingday", "temp", "atemp", "hum", "windspeed")


@dataclass(frozen=True)
class Workshop:
    """A folder with data, contract and home."""

    folder: Path
    settings: TrainingSettings

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def registry(self) -> MlflowRegistry:
        return MlflowRegistry(self.home)

    def train(self, *, accept_worse: bool = False, **changed: Any) -> TrainingReport:
        settings = self.settings.model_copy(update=changed)
        return train("bike-demand", settings, home=self.home, accept_worse=accept_worse)

    def copy(self, folder: Path) -> Workshop:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Workshop(folder, _in(self.settings, folder))


def _in(settings: TrainingSettings, folder: Path) -> TrainingSettings:
    return settings.model_copy(update={"data": folder / "data.parquet", "contract": folder / "contract.yaml"})


@pytest.fixture(scope="session")
def bikes() -> pl.DataFrame:
    return pl.read_parquet(DEMO / "data" / "bike_sharing_hour.parquet")[-3000:]


@pytest.fixture(scope="session")
def bike_contract() -> dict[str, Any]:
    path = DEMO / "data" / "bike_sharing.contract.yaml"
    contract: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    contract["schema"][0]["quality"] = [{"metric": "rowCount", "mustBeBetween": [1000, 3000]}]
    return contract


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, bikes: pl.DataFrame, bike_contract: dict[str, Any]
) -> tuple[Workshop, TrainingReport]:
    folder = tmp_path_factory.mktemp("bikes")
    bikes.write_parquet(folder / "data.parquet")
    (folder / "contract.yaml").write_text(yaml.safe_dump(bike_contract), "utf-8")
    settings = TrainingSettings(
        data=folder / "data.parquet",
        contract=folder / "contract.yaml",
        target="cnt",
        time_column="ts",
        numeric=NUMERIC,
        categorical=("season", "weathersit"),
    )
    workshop = Workshop(folder, settings)
    return workshop, workshop.train()


@pytest.fixture
def workshop(trained: tuple[Workshop, TrainingReport], tmp_path: Path) -> Workshop:
    """A copy, home and all, that a test may spoil."""
    return trained[0].copy(tmp_path)


@pytest.fixture(scope="session")
def predictor(trained: tuple[Workshop, TrainingReport]) -> OnnxPredictor:
    return OnnxPredictor(trained[0].registry.resolve("bike-demand", "champion"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> OnnxPredictor:
    """A model with every kind of column: text, boolean, whole number, and a number that may be missing."""
    folder = tmp_path_factory.mktemp("classifier")
    chance = random.Random(1)
    rows = [
        {
            "colour": chance.choice(["red", "green", "blue"]),
            "large": chance.random() < 0.5,
            "count": chance.randint(0, 9),
            "weight": None if chance.random() < 0.1 else chance.random(),
        }
        for _ in range(600)
    ]
    ripe = (pl.col("colour") == "red") | (pl.col("large") & (pl.col("count") > 5))
    label = pl.when(ripe).then(pl.lit("ripe")).otherwise(pl.lit("raw")).alias("label")
    pl.DataFrame(rows).with_columns(label).write_csv(folder / "fruit.csv")
    kinds = {"colour": "string", "large": "boolean", "count": "integer", "weight": "number"}
    kinds["label"] = "string"
    properties = [
        {"name": name, "logicalType": kind, "required": name != "weight"} for name, kind in kinds.items()
    ]
    (folder / "fruit.yaml").write_text(yaml.safe_dump(contract_of(*properties)), "utf-8")
    settings = TrainingSettings(
        data=folder / "fruit.csv",
        contract=folder / "fruit.yaml",
        target="label",
        numeric=("large", "count", "weight"),
        categorical=("colour",),
    )
    report = train("fruit", settings, home=folder / "home")
    assert report.version == "1"
    return OnnxPredictor(MlflowRegistry(folder / "home").resolve("fruit", "champion"))


def contract_of(*properties: dict[str, Any], **table: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "test",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "table", "properties": list(properties), **table}],
    }


Tensors = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def bike_inputs(bikes: pl.DataFrame) -> Tensors:
    """Make a request's inputs from the first rows of the data, with some tensors replaced or left out."""

    def make(rows: int = 1, **replaced: dict[str, Any] | None) -> list[dict[str, Any]]:
        tensors = []
        for name in (*NUMERIC, "season", "weathersit"):
            datatype = "FP64" if bikes[name].dtype == pl.Float64 else "INT64"
            data = bikes[name][:rows].to_list()
            tensor = {"name": name, "shape": [rows], "datatype": datatype, "data": data}
            change = replaced.get(name, {})
            if change is not None:
                tensors.append({**tensor, **change})
        return tensors

    return make
