"""Reads what `--json` has written of a run, to compare it with another one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilith.errors import DataError


@dataclass(frozen=True, slots=True)
class RecordedMetric:
    """One metric of a recorded suite."""

    scores: Mapping[str, float]
    """By case; of several repeats, their mean. Cases without any score are left out."""
    cases: int
    """All cases, scored or not."""
    higher_is_better: bool
    over_suite: bool
    """Whether the figure is made over all pairs; the scores are losses then."""


@dataclass(frozen=True, slots=True)
class RecordedSuite:
    """One suite of a recorded run."""

    name: str
    digest: str
    """Of the dataset."""
    clusters: Mapping[str, str]
    """What each case came from; cases that stand alone are left out."""
    metrics: Mapping[str, RecordedMetric]


def read(path: Path) -> dict[str, RecordedSuite]:
    """Return a run's suites by name.

    Raises:
        DataError: the file cannot be read, or is no report.
    """
    try:
        told = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON; `trilith eval run --json PATH` writes such a file") from error
    try:
        return {suite["name"]: _suite(suite) for suite in told["suites"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no report of a run ({type(error).__name__}: {error}); "
            "`trilith eval run --json PATH` writes one"
        ) from error


def _suite(told: dict[str, Any]) -> RecordedSuite:
    rows = told["rows"]
    clusters = {row["id"]: row["cluster"] for row in rows if row.get("cluster") is not None}
    metrics = {figure["metric"]: _metric(figure, rows) for figure in told["figures"]}
    return RecordedSuite(told["name"], told["digest"], clusters, metrics)


def _metric(figure: dict[str, Any], rows: list[dict[str, Any]]) -> RecordedMetric:
    found: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"][figure["metric"]]["value"]
        if value is not None:
            found.setdefault(row["id"], []).append(value)
    scores = {case: math.fsum(values) / len(values) for case, values in found.items()}
    over_suite = figure["over_suite"]
    return RecordedMetric(
        scores, len({row["id"] for row in rows}), figure["higher_is_better"] and not over_suite, over_suite
    )
