"""The real bike model in two versions, and a running gateway that serves it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from support.gateway import PRICE, Gateway, Running
from support.mlflow_server import Learned, learn

from trilith.settings.schema import Settings, TrainingSettings
from trilith_classical import train
from trilith_classical.registry import MlflowRegistry

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "data"
NUMERIC = ("yr", "mnth", "hr", "weekday", "holiday", "workingday", "temp", "atemp", "hum", "windspeed")
COLUMNS = (*NUMERIC, "season", "weathersit")

Inputs = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def bikes() -> pl.DataFrame:
    return pl.read_parquet(DEMO / "bike_sharing_hour.parquet")[-2000:]


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory, bikes: pl.DataFrame) -> Path:
    """A home whose registry has version 1 (`champion`) and version 2 of `bike-demand`."""
    folder = tmp_path_factory.mktemp("bikes")
    bikes.write_parquet(folder / "data.parquet")
    contract: dict[str, Any] = yaml.safe_load((DEMO / "bike_sharing.contract.yaml").read_text("utf-8"))
    contract["schema"][0]["quality"] = [{"metric": "rowCount", "mustBeBetween": [1000, 3000]}]
    (folder / "contract.yaml").write_text(yaml.safe_dump(contract), "utf-8")
    settings = TrainingSettings(
        data=folder / "data.parquet",
        contract=folder / "contract.yaml",
        target="cnt",
        time_column="ts",
        numeric=NUMERIC,
        categorical=("season", "weathersit"),
    )
    train("bike-demand", settings, home=folder / "home")
    train("bike-demand", settings.model_copy(update={"seed": 7}), home=folder / "home", accept_worse=True)
    MlflowRegistry(folder / "home").set_alias("bike-demand", "champion", "1")
    return folder / "home"


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """Two small models, and the same ones as MLflow serves them."""
    return learn(tmp_path_factory.mktemp("learned"))


@pytest.fixture
def home(registered: Path, tmp_path: Path) -> Path:
    """A copy whose alias a test may move."""
    return Path(shutil.copytree(registered, tmp_path / "home"))


@pytest.fixture
def inputs(bikes: pl.DataFrame) -> Inputs:
    """Make a request's tensors from rows of the data."""

    def make(rows: int = 1, start: int = 0) -> list[dict[str, Any]]:
        part = bikes[start : start + rows]
        return [
            {
                "name": name,
                "shape": [rows],
                "datatype": "FP64" if part[name].dtype == pl.Float64 else "INT64",
                "data": part[name].to_list(),
            }
            for name in COLUMNS
        ]

    return make


@pytest.fixture
def serve(home: Path, tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Start gateways over the registry; keyword arguments are further settings of the model."""
    with ExitStack() as stack:

        def start(name: str = "bike", **model: Any) -> Gateway:
            remote = "upstream" in model
            chosen = {} if remote else {"registered_model": "bike-demand"}
            described = {"kind": "predictor", "price": PRICE | {"usd_per_krow": "1"}, **chosen, **model}
            settings = Settings.model_validate(
                {"home": tmp_path / "front" if remote else home, "models": {name: described}}
            )
            return stack.enter_context(Running(settings, {}))

        yield start
