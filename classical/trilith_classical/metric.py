"""How good predictions are, and how good a forecast would be that costs nothing."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import polars as pl

from trilith_classical.dataset import Dataset, target_values
from trilith_classical.manifest import Task

Array: TypeAlias = np.ndarray[Any, Any]

DECISIVE: dict[Task, str] = {"regression": "rmse", "classification": "log_loss"}
"""The metric by which a challenger is held against the champion; smaller is better."""

_WEEK = "7d"


def regression(truth: Array, predicted: Array) -> dict[str, float]:
    """Return `mae`, `rmse` (both in the target's unit) and `r2` for `(rows,)` values."""
    error = truth - predicted
    spread = float(((truth - truth.mean()) ** 2).sum())
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": 1 - float((error**2).sum()) / spread if spread else 0.0,
    }


def classification(truth: Array, probabilities: Array, classes: tuple[Any, ...]) -> dict[str, float]:
    """Return `accuracy` and `log_loss` (nats) for `(rows, classes)` probabilities.

    A label that is not among the classes counts as predicted with the smallest probability there is.
    """
    place = {label: at for at, label in enumerate(classes)}
    at = np.array([place.get(label, -1) for label in truth.tolist()])
    known = at >= 0
    chosen = np.where(known, probabilities[np.arange(len(at)), np.maximum(at, 0)], 0.0)
    return {
        "accuracy": float(((probabilities.argmax(axis=1) == at) & known).mean()),
        "log_loss": float(-np.log(np.clip(chosen, np.finfo(np.float32).eps, 1.0)).mean()),
    }


def score(task: Task, truth: Array, outputs: list[Array], classes: tuple[Any, ...]) -> dict[str, float]:
    """Score what an ONNX model gave for rows whose truth is known."""
    if task == "regression":
        return regression(truth, outputs[0].reshape(-1).astype(np.float64))
    return classification(truth, outputs[1].astype(np.float64), classes)


def baseline(data: Dataset) -> tuple[str, dict[str, float]]:
    """Score the best naive forecast of the held-out rows.

    For amounts that is the training part's mean, or the value of the same hour one week before (the mean
    where there is none) if that is better; for classes it is how frequent each was in training.

    Returns:
        What the forecast is called, and its metrics.
    """
    truth = target_values(data.test, data.target, data.task)
    known = target_values(data.train, data.target, data.task)
    if data.task == "classification":
        classes, counts = np.unique(known, return_counts=True)
        shares = np.tile(counts / counts.sum(), (len(truth), 1))
        return "class frequencies", classification(truth, shares, tuple(classes.tolist()))
    mean = known.mean()
    found = {"mean": regression(truth, np.full(len(truth), mean))}
    if (last_week := _last_week(data)) is not None:
        found["same hour last week"] = regression(truth, np.where(np.isnan(last_week), mean, last_week))
    name = min(found, key=lambda one: found[one]["rmse"])
    return name, found[name]


def _last_week(data: Dataset) -> Array | None:
    time = data.time_column
    if time is None or data.test[time].dtype not in (pl.Date, pl.Datetime):
        return None
    past = pl.concat([data.train, data.test]).select(time, pl.col(data.target).alias("before"))
    if past[time].is_duplicated().any():
        return None  # several series share the column: which one was it a week ago?
    wanted = data.test.select(pl.col(time).dt.offset_by(f"-{_WEEK}"))
    before = wanted.join(past, on=time, how="left", maintain_order="left")["before"]
    return before.cast(pl.Float64).fill_null(float("nan")).to_numpy()
