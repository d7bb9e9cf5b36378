"""MLflow's own scoring server, as `mlflow models serve` starts it, and the models that it and we serve."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from support.installed import free_port, until
from trilith.settings.schema import Settings, TrainingSettings
from trilith_classical import pipeline, train
from trilith_classical.contract import read_contract
from trilith_classical.dataset import Dataset, features, prepare
from trilith_classical.manifest import SKOPS, read_manifest
from trilith_classical.registry import MlflowRegistry

MLFLOW = str(Path(sys.executable).with_name("mlflow"))


@dataclass(frozen=True)
class Learned:
    """Two models, ours and the same ones as MLflow serves them."""

    home: Path
    """Its registry has ours as `champion`."""
    logged: Mapping[str, Path]
    """What `mlflow models serve` takes, by name."""

    def settings(self, home: Path, **model: Any) -> Settings:
        """Return the settings of a gateway with both, in a home of its own; keywords are the models'."""
        shutil.copytree(self.home, home)
        models = {name: {"kind": "predictor", "registered_model": name, **model} for name in self.logged}
        return Settings.model_validate({"home": home, "models": models})


def learn(folder: Path) -> Learned:
    """Train `flat`, with a column of each type, and `leaf`, a matrix to MLflow, which gives labels."""
    flat = _trained(
        folder,
        "flat",
        _flats(),
        [
            {"name": "area", "logicalType": "number"},
            {"name": "rooms", "logicalType": "integer", "required": True},
            {"name": "city", "logicalType": "string", "required": True},
            {"name": "furnished", "logicalType": "boolean", "required": True},
            {"name": "target", "logicalType": "number", "required": True},
        ],
        numeric=["area", "rooms", "furnished"],
        categorical=["city"],
    )
    leaf = _trained(
        folder,
        "leaf",
        _leaves(),
        [
            {"name": "a", "logicalType": "number", "required": True},
            {"name": "b", "logicalType": "number", "required": True},
            {"name": "target", "logicalType": "string", "required": True},
        ],
        named=False,
        numeric=["a", "b"],
    )
    return Learned(folder / "home", {"flat": flat, "leaf": leaf})


def _flats() -> pl.DataFrame:
    rng = random.Random(1)
    rows = []
    for _ in range(400):
        area, rooms, furnished = rng.uniform(20, 150), rng.randint(1, 5), rng.random() < 0.5
        city = rng.choice(["Oslo", "Rome", "Wien"])
        rent = area * 10 + rooms * 30 + 50 * furnished + (200 if city == "Oslo" else 0)
        shown = None if rng.random() < 0.1 else area
        rows.append({"area": shown, "rooms": rooms, "city": city, "furnished": furnished, "target": rent})
    return pl.DataFrame(rows)


def _leaves() -> pl.DataFrame:
    rng = random.Random(2)
    points = [(rng.random(), rng.random()) for _ in range(300)]
    kinds = ["low" if a + b < 0.8 else "high" if a + b > 1.2 else "mid" for a, b in points]
    return pl.DataFrame({"a": [a for a, _ in points], "b": [b for _, b in points], "target": kinds})


def _trained(
    folder: Path,
    name: str,
    table: pl.DataFrame,
    columns: Sequence[Mapping[str, Any]],
    *,
    named: bool = True,
    **settings: Any,
) -> Path:
    """Train a model of ours as `champion` in `<folder>/home`, and log the same pipeline for MLflow to serve.

    Args:
        folder: Holds everything.
        name: Registered model.
        table: What it learns from.
        columns: The contract's properties.
        named: Whether MLflow's model reads named columns; otherwise a matrix, which only numbers can be.
        settings: The training's.

    Returns:
        The folder that `mlflow models serve` takes.
    """
    place = folder / name
    place.mkdir()
    table.write_parquet(place / "data.parquet")
    contract = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": name,
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": name, "physicalType": "parquet", "properties": list(columns)}],
    }
    (place / "contract.yaml").write_text(yaml.safe_dump(contract), "utf-8")
    chosen = TrainingSettings(
        data=place / "data.parquet", contract=place / "contract.yaml", target="target", **settings
    )
    train(name, chosen, home=folder / "home", accept_worse=True)
    data = prepare(table, read_contract(chosen.contract), chosen, name=name)
    made = MlflowRegistry(folder / "home").resolve(name, "champion").path
    return _logged(place / "logged", Path(made), data, named=named)


def _logged(place: Path, version: Path, data: Dataset, *, named: bool) -> Path:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    manifest = read_manifest(version)
    fitted = pipeline.load(version / SKOPS, digest=manifest.digests[SKOPS], trusted=manifest.trusted)
    frame = features(data.train, data.columns).to_pandas()
    if not named:
        fitted, frame = fitted[-1], frame.to_numpy()
    mlflow.sklearn.save_model(
        fitted,
        str(place),
        signature=infer_signature(frame, fitted.predict(frame)),
        pip_requirements=["mlflow"],
        skops_trusted_types=list(manifest.trusted),
    )
    return place


@contextmanager
def mlflow_server(model: Path) -> Iterator[str]:
    """Run `mlflow models serve` over a logged model; gives its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [MLFLOW, "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local"]
    path = f"{Path(MLFLOW).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it calls its server by name
    quiet = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    log = model.parent / "serve.log"
    with log.open("wb") as written:
        child = subprocess.Popen(
            command, env=quiet, cwd=model.parent, stdout=written, stderr=written, start_new_session=True
        )

    def up() -> bool:
        assert child.poll() is None, log.read_text("utf-8")
        try:
            with urllib.request.urlopen(f"{url}/ping", timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        until(up, seconds=180, what="`mlflow models serve` being up")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 15)  # its worker as well, which is what answers
        child.wait()
