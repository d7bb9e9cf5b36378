"""Measures what one inference costs inside the gateway, without HTTP (`python bench/inference_codec.py`).

Trains the demo's bike model into a temporary folder first.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from trilith.seams import Call
from trilith.settings.schema import TrainingSettings
from trilith_classical import PredictorUpstream, open_predictor, train

DEMO = Path(__file__).parent.parent / "examples" / "demo" / "data"
NUMERIC = ("yr", "mnth", "hr", "weekday", "holiday", "workingday", "temp", "atemp", "hum", "windspeed")
CATEGORICAL = ("season", "weathersit")
PATH = "/v2/models/bike-demand/infer"


def main() -> None:
    """Print CPU microseconds per request and per row."""
    home = Path(sys.argv[1]) if len(sys.argv) > 1 else trained()
    asyncio.run(measure(open_predictor("bike-demand", "champion", home=home)))


def trained() -> Path:
    """Train the model on the demo's data; returns the platform's folder."""
    warnings.simplefilter("ignore")
    home = Path(tempfile.mkdtemp()) / "home"
    settings = TrainingSettings(
        data=DEMO / "bike_sharing_hour.parquet",
        contract=DEMO / "bike_sharing.contract.yaml",
        target="cnt",
        time_column="ts",
        numeric=NUMERIC,
        categorical=CATEGORICAL,
    )
    train("bike-demand", settings, home=home)
    return home


async def measure(upstream: PredictorUpstream) -> None:
    """Measure single calls, parts of them, and joined ones."""
    frame = pl.read_parquet(DEMO / "bike_sharing_hour.parquet")
    print(f"{'':<34}{'us/request':>12}{'us/row':>10}   (CPU)")
    for rows in (1, 8, 64, 1000):
        body = request(frame, rows)
        raw = orjson.dumps(body)
        call = Call(PATH, raw, json=body)
        times = max(20, 4000 // rows)
        show(f"send, {rows} rows", await cpu(lambda c=call: upstream.send(c), times), rows)
        if rows == 1:
            show("  of which: orjson.loads", timed(lambda r=raw: orjson.loads(r), times), 1)
            predictor = upstream.host.present.predictor
            tensors = predictor.reader.read(body)
            show("  of which: read", timed(lambda p=predictor, b=body: p.reader.read(b), times), 1)
            show("  of which: run", timed(lambda p=predictor, t=tensors: p.run(t), times), 1)
    call = Call(PATH, orjson.dumps(request(frame, 1)), json=request(frame, 1))
    for together in (4, 16, 64):
        took = await cpu(lambda n=together: joined(upstream, call, n), 100)
        show(f"{together} calls of 1 row at a time", took / together, 1)
    await upstream.aclose()


async def joined(upstream: PredictorUpstream, call: Call, together: int) -> None:
    """Send so many calls at once."""
    await asyncio.gather(*(upstream.send(call) for _ in range(together)))


def request(frame: pl.DataFrame, rows: int) -> dict[str, Any]:
    """Return a request with so many rows."""
    inputs = []
    for name in (*NUMERIC, *CATEGORICAL):
        datatype = "FP64" if frame[name].dtype == pl.Float64 else "INT64"
        inputs.append(
            {"name": name, "shape": [rows], "datatype": datatype, "data": frame[name][:rows].to_list()}
        )
    return {"inputs": inputs}


async def cpu(work: Any, times: int) -> float:
    """Return CPU microseconds of an awaited call, threads included."""
    for _ in range(10):
        await work()
    started = time.process_time_ns()
    for _ in range(times):
        await work()
    return (time.process_time_ns() - started) / times / 1000


def timed(work: Any, times: int) -> float:
    """Return CPU microseconds of a plain call."""
    started = time.process_time_ns()
    for _ in range(times):
        work()
    return (time.process_time_ns() - started) / times / 1000


def show(what: str, microseconds: float, rows: int) -> None:
    """Print one line."""
    print(f"{what:<34}{microseconds:>12.1f}{microseconds / rows:>10.2f}")


if __name__ == "__main__":
    main()
