"""`/infer`, one row at a time, beside other model servers: the same data, the same kind of pipeline.

Ours is trained as users train and served full: keys, budget, limits, ledger, metrics. The others get a
scikit-learn pipeline of the same shape (300 boosted trees behind the same encoders), made in their own
environment from the same rows, and are called in the protocol that is theirs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from bench.gateway.cost import Seen, load, order
from bench.gateway.ours import commit, make_key
from bench.gateway.peer import python
from bench.gateway.process import ROOT, on_core, rss_mb
from bench.gateway.report import missing, number, table
from bench.gateway.target import BIN, Missing, Place, Target
from bench.inference_codec import CATEGORICAL, DEMO, NUMERIC, request

_COLUMNS = [*NUMERIC, *CATEGORICAL]
_TRAIN = f"""
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
rows = pd.read_csv("rows.csv")
encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
encoders = [(c, encoder, [c]) for c in {list(CATEGORICAL)!r}]
columns = ColumnTransformer([("numeric", "passthrough", {list(NUMERIC)!r}), *encoders])
trees = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.1, early_stopping=False, random_state=0)
model = make_pipeline(columns, trees).fit(rows[{_COLUMNS!r}], rows["cnt"])
"""
_BENTO = f"""
import bentoml, joblib, numpy as np, pandas as pd

@bentoml.service(traffic={{"timeout": 60}})
class Bike:
    def __init__(self):
        self.model = joblib.load("model.joblib")

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.model.predict(pd.DataFrame(rows, columns={_COLUMNS!r}))
"""


def run(peers: Path, folder: Path, only: str, seconds: float) -> str:
    """Measure and return the table."""
    frame = pl.read_parquet(DEMO / "bike_sharing_hour.parquet")
    found: dict[str, Seen] = {}
    why: dict[str, str] = {}
    for target, body in _targets(folder, frame):
        if only and not target.name.startswith(tuple(only.split(","))):
            continue
        print(f"... /infer: {target.name}", file=sys.stderr, flush=True)
        try:
            version = target.version(peers)
            with target.running(
                peers, folder / target.name.replace(" ", "-"), "http://127.0.0.1:9"
            ) as started:
                asked = replace(order(target, started, ""), body=json.dumps(body), seconds=seconds)
                load(replace(asked, connections=2))  # warm
                points = {f"c{n}": load(replace(asked, connections=n)) for n in (1, 16, 64)}
                found[target.name] = {"version": version, "mb": rss_mb(started.pid), **points}
        except (Missing, OSError, subprocess.CalledProcessError) as error:
            why[target.name] = str(error)
    return "## Inference, one row, scikit-learn\n\n" + _report(found) + missing(why)


def _report(found: dict[str, Seen]) -> str:
    base = found.get("trilith full")
    rows = []
    for name, seen in found.items():
        cpu = {point: seen[point]["cpu_us"] for point in ("c1", "c16", "c64")}
        times = cpu["c64"] / base["c64"]["cpu_us"] if base else None
        rows.append(
            (
                name,
                seen["version"],
                " / ".join(number(cpu[point], 0) for point in cpu),
                number(1e6 / cpu["c64"], 0),
                number(times, 1),
                number(seen["c1"]["p50_us"] / 1e3, 2),
                number(seen["mb"], 0),
            )
        )
    head = (
        "server",
        "version",
        "CPU us a request c=1 / 16 / 64",
        "requests a core-second c=64",
        "/ ours",
        "p50 ms c=1",
        "MB",
    )
    return table(head, rows)


def _targets(folder: Path, frame: pl.DataFrame) -> list[tuple[Target, dict[str, Any]]]:
    first = frame[:1]
    tensors = request(frame, 1)
    panda = {"parameters": {"content_type": "pd"}, **tensors}
    split = {"dataframe_split": {"columns": _COLUMNS, "data": first.select(_COLUMNS).rows()}}
    wanted = ("scikit-learn==1.7.2", "pandas<3")
    environment = (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("DO_NOT_TRACK", "1"),
        ("BENTOML_DO_NOT_TRACK", "True"),
    )
    infer = "/v2/models/bike-demand/infer"
    return [
        (_ours(), tensors),
        (
            Target(
                "mlflow models serve",
                python("mlflow==3.17.2", *wanted),
                lambda place: _mlflow(place, frame),
                path="/invocations",
                environment=environment,
                ready_s=120,
                ready_path="/ping",
            ),
            split,
        ),
        (
            Target(
                "mlserver",
                python("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
                lambda place: _mlserver(place, frame, batch=1),
                path=infer,
                environment=environment,
                ready_s=120,
                ready_path=infer.replace("infer", "ready"),
            ),
            panda,
        ),
        (
            Target(
                "mlserver, batching",
                python("mlserver==1.7.1", "mlserver-sklearn==1.7.1"),
                lambda place: _mlserver(place, frame, batch=64),
                path=infer,
                environment=environment,
                ready_s=120,
                ready_path=infer.replace("infer", "ready"),
            ),
            panda,
        ),
        (
            Target(
                "bentoml, batching",
                python("bentoml==1.4.40", *wanted),
                lambda place: _bentoml(place, frame),
                path="/predict",
                environment=environment,
                ready_s=120,
                ready_path="/readyz",
            ),
            {"rows": [list(row) for row in first.select(_COLUMNS).rows()]},
        ),
    ]


def _ours() -> Target:
    def command(place: Place) -> list[str]:
        program = "from bench.inference_codec import trained; print(trained())"
        done = subprocess.run(_alone(sys.executable, program), cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"cannot train: {done.stderr[-200:]}")
        shutil.rmtree(place.folder / "home", ignore_errors=True)  # of another table's row
        shutil.move(done.stdout.split()[-1], place.folder / "home")
        (place.folder / "trilith.yaml").write_text(
            f"home: home\ngateway: {{port: {place.port}}}\ntelemetry: {{store_spans: false}}\n"
            "models:\n  bike-demand:\n    kind: predictor\n    registered_model: bike-demand\n"
            '    price: {usd_per_krow: "0.0005"}\n'
        )
        return [str(BIN / "trilith"), "serve"]

    def key(folder: Path) -> str:
        return make_key(folder, "--budget-usd", "1000000", "--requests-per-minute", "100000000")

    infer = "/v2/models/bike-demand/infer"
    return Target("trilith full", commit, command, key, path=infer, ready_s=120, ready_path="/readyz")


def _alone(binary: str, program: str) -> list[str]:
    """Return the command that runs a program on one core: OpenMP's threads wait by spinning."""
    return on_core(1, binary, "-W", "ignore", "-c", program)


def _make(place: Place, environment: str, frame: pl.DataFrame, save: str) -> Path:
    """Train in a peer's own environment; returns where its commands are."""
    binaries = place.peers / f"venv-{environment}" / "bin"
    frame.select(*_COLUMNS, "cnt").write_csv(place.folder / "rows.csv")
    program = _alone(str(binaries / "python"), _TRAIN + save)
    done = subprocess.run(program, cwd=place.folder, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"cannot train there: {done.stderr[-200:]}")
    return binaries


def _mlflow(place: Place, frame: pl.DataFrame) -> list[str]:
    save = "import mlflow.sklearn as m\nm.save_model(model, 'model', serialization_format='cloudpickle')\n"
    binaries = _make(place, "mlflow", frame, save)
    serve = f"exec {binaries}/mlflow models serve -m model -p {place.port} --env-manager local --workers 1"
    return ["env", f"PATH={binaries}:/usr/bin:/bin", "sh", "-c", serve]


def _mlserver(place: Place, frame: pl.DataFrame, *, batch: int) -> list[str]:
    binaries = _make(place, "mlserver", frame, "import joblib\njoblib.dump(model, 'model.joblib')\n")
    settings: dict[str, Any] = {
        "name": "bike-demand",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib"},
    }
    if batch > 1:
        settings |= {"max_batch_size": batch, "max_batch_time": 0.002}
    (place.folder / "model-settings.json").write_text(json.dumps(settings))
    ports = {"http_port": place.port, "grpc_port": place.port + 1, "metrics_port": place.port + 2}
    server = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (place.folder / "settings.json").write_text(json.dumps(server))
    return [str(binaries / "mlserver"), "start", "."]


def _bentoml(place: Place, frame: pl.DataFrame) -> list[str]:
    binaries = _make(place, "bentoml", frame, "import joblib\njoblib.dump(model, 'model.joblib')\n")
    (place.folder / "service.py").write_text(textwrap.dedent(_BENTO))
    serve = [str(binaries / "bentoml"), "serve", "service:Bike", "--port", str(place.port)]
    return [*serve, "--host", "127.0.0.1", "--api-workers", "1"]
