"""A suite's dataset as MLflow knows one: name, digest, source, and which part of it was run."""

from __future__ import annotations

import json
from typing import Any

from trilith.extras import need
from trilith_evals.report import SuiteReport

_LONGEST_DIGEST = 36
"""Characters of MLflow's column."""


def mlflow_input(suite: SuiteReport) -> Any:
    """Return the `mlflow.entities.DatasetInput` for `MlflowClient.log_inputs`.

    Its digest is that of the rows' content, so that one dataset in another order or format is the same there;
    the digest of the file's bytes stands in its profile.

    Raises:
        MissingExtra: MLflow is not installed.
    """
    entities = need("mlflow.entities", extra="evals")
    place = suite.source.absolute().as_uri() if suite.source else ""
    digest = suite.content_digest or suite.digest
    profile = {
        "cases": suite.cases,
        "sha256": suite.digest,
        "content_sha256": suite.content_digest,
        "split": suite.split,
        "held_out": suite.held_out,
        "looks": suite.looks,
    }
    made = entities.Dataset(
        name=suite.data,
        digest=digest[:_LONGEST_DIGEST],
        source_type="local" if place else "code",
        source=json.dumps({"uri": place} if place else {"tags": {"trilith.eval.suite": suite.name}}),
        profile=json.dumps(profile),
    )
    tags = {
        "mlflow.data.context": "evaluation",
        "split": suite.split,
        "held_out": str(suite.held_out).lower(),
    }
    return entities.DatasetInput(
        made, [entities.InputTag(key, value) for key, value in tags.items() if value]
    )
