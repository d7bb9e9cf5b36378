"""Logs a report to MLflow: a run per suite with its parameters, figures, dataset and the report itself."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilith.errors import APIConnectionError
from trilith.extras import need
from trilith_evals.output.markdown import markdown
from trilith_evals.output.page import page
from trilith_evals.report import Report, SuiteReport, suite_json
from trilith_evals.tracked import mlflow_input

EXPERIMENT = "trilith-evals"

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_\-. /]")


def log(report: Report, uri: str) -> None:
    """Log every suite as one run of the experiment `trilith-evals`.

    Raises:
        MissingExtra: MLflow is not installed.
        APIConnectionError: the tracking server refused or cannot be reached.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    tracking = need("mlflow", extra="evals").tracking
    refused = need("mlflow.exceptions", extra="evals").MlflowException
    try:
        client = tracking.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            found.experiment_id
            if found
            else client.create_experiment(EXPERIMENT, artifact_location=_beside(uri))
        )
        for suite in report.suites:
            _log_suite(client, experiment, suite, report)
    except (refused, OSError) as error:
        raise APIConnectionError(f"MLflow at {uri!r} did not take the report: {error}") from error


def _beside(uri: str) -> str | None:
    """Return where a local database's artefacts go; MLflow would put them into the current folder."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "artifacts").as_uri()


def _log_suite(client: Any, experiment: str, suite: SuiteReport, report: Report) -> None:
    started_ms = int(report.started.timestamp() * 1000)
    run = client.create_run(
        experiment, start_time=started_ms, run_name=f"{suite.name} {report.started:%F %T}"
    )
    run_id = run.info.run_id
    told = {
        "suite": suite.name,
        "model": suite.target,
        "task": suite.task,
        "data": suite.data,
        "data_digest": suite.digest,
        "cases": suite.cases,
        "repeats": suite.repeats,
        **{f"parameters.{key}": value for key, value in suite.parameters.items()},
    }
    for key, value in told.items():
        client.log_param(run_id, _NOT_ALLOWED.sub("_", key), value)
    for figure in (*suite.figures, *suite.slices):
        name = _NOT_ALLOWED.sub("_", f"{figure.metric}.{figure.slice}" if figure.slice else figure.metric)
        client.log_metric(run_id, f"{name}.coverage", figure.coverage)
        if figure.estimate is not None:
            client.log_metric(run_id, name, figure.estimate.value)
            for end, bound in (("low", figure.estimate.low), ("high", figure.estimate.high)):
                if bound is not None:
                    client.log_metric(run_id, f"{name}.{end}", bound)
    for key, value in _further(suite).items():
        client.log_metric(run_id, _NOT_ALLOWED.sub("_", key), value)
    for key, value in _tags(suite).items():
        client.set_tag(run_id, key, value)
    client.log_inputs(run_id, datasets=[mlflow_input(suite)])
    alone = replace(report, suites=(suite,))
    client.log_dict(run_id, suite_json(suite, content=report.content), "report.json")
    client.log_text(run_id, page(alone), "report.html")
    client.log_text(run_id, markdown(alone), "report.md")
    client.set_terminated(run_id)


def _further(suite: SuiteReport) -> dict[str, float]:
    """Return what is measured beside the figures: the comparison with the run before, and the money."""
    told: dict[str, float] = {}
    for line in suite.lines:
        name = f"{line.metric}.{line.slice}" if line.slice else line.metric
        found = line.comparison
        bounds = (found.difference.value, found.difference.low, found.difference.high, found.p)
        for key, value in zip(("difference", "difference.low", "difference.high", "p"), bounds, strict=True):
            if value is not None:
                told[f"{name}.{key}"] = value
    if suite.spend:
        # MLflow's metrics are floats; the exact amounts are in report.json.
        told["spend.target_usd"] = suite.spend.target_pico_usd / 10**12
        told["spend.judges_usd"] = suite.spend.scorers_pico_usd / 10**12
        told["spend.kept"] = suite.spend.kept
        told["spend.unpriced"] = suite.spend.unpriced
    return told


def _tags(suite: SuiteReport) -> dict[str, str]:
    told = {"outcome": suite.outcome.value, "held_out": str(suite.held_out).lower()}
    if suite.rests_on:
        told["rests_on"] = suite.rests_on
    if suite.baseline:
        told["baseline"] = suite.baseline
    uncalibrated = [mark.metric for mark in suite.judges if not mark.calibrated]
    if uncalibrated:
        told["uncalibrated_judges"] = ", ".join(uncalibrated)
    if commit := _commit():
        told["mlflow.source.git.commit"] = commit
    return told


def _commit() -> str:
    """Return the commit that is checked out here; empty outside a repository, or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
