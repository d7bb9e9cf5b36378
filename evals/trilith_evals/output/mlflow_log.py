"""Logs a report to MLflow: a run per suite with its parameters, figures and the report's JSON."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from trilith.errors import APIConnectionError
from trilith.extras import need
from trilith_evals.report import Report, SuiteReport, suite_json

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
    for figure in suite.figures:
        name = _NOT_ALLOWED.sub("_", figure.metric)
        client.log_metric(run_id, f"{name}.coverage", figure.coverage)
        if figure.estimate is not None:
            client.log_metric(run_id, name, figure.estimate.value)
            for end, bound in (("low", figure.estimate.low), ("high", figure.estimate.high)):
                if bound is not None:
                    client.log_metric(run_id, f"{name}.{end}", bound)
    client.set_tag(run_id, "outcome", suite.outcome.value)
    client.log_dict(run_id, suite_json(suite, content=report.content), "report.json")
    client.set_terminated(run_id)
