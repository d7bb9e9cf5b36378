"""Runs schemathesis over a running gateway's OpenAPI page, in a process of its own."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEED = 20_260_301
PHASES = "coverage,fuzzing,stateful"
_UNSAYABLE = """
# No JSON schema can say that a tensor's values fill its shape, that rows are of one length, that a batch
# has not ended yet, that a run's figures follow from its rows, and that two runs have a metric in common.
[[operations]]
include-path-regex = "/infer$|/invocations$|/cancel$|/evals/runs$|/evals/monitors$|/evals/compare$"
checks.positive_data_acceptance.enabled = false
"""


def aimed(page: Mapping[str, Any], models: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the page with models (and, where `models` has any, files and batches) that exist.

    So requests get further than `model_not_found`.

    What an upstream may add (`default`) is left out: every status must be one that the gateway names.
    """
    made: dict[str, Any] = copy.deepcopy(dict(page))
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            operation["responses"].pop("default", None)
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in ("name", "version"):
                    choices = models["/v2"] if path.startswith("/v2") else models["/v1"]
                    parameter["schema"] = {"enum": choices if parameter["name"] == "name" else ["1", "9"]}
                if (
                    parameter["name"] in ("id", "after", "baseline", "candidate")
                    and f"{method} {path}" in models
                ):
                    parameter["schema"] = {"enum": models[f"{method} {path}"]}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                fields = content["schema"].get("properties", {})
                if "model" in fields:
                    fields["model"] = {"enum": models[path], "type": "string"}
                if "input_file_id" in fields and "input_file_id" in models:
                    fields["input_file_id"] = {"enum": models["input_file_id"], "type": "string"}
    return made


def schemathesis(
    url: str,
    page: Mapping[str, Any],
    folder: Path,
    *,
    key: str | None,
    examples: int,
    phases: str = PHASES,
    seed: int = SEED,
) -> tuple[int, str]:
    """Run the phases with every check; returns the exit code (0: nothing was found) and what was printed."""
    (folder / "page.json").write_text(json.dumps(page), encoding="utf-8")
    (folder / "schemathesis.toml").write_text(_UNSAYABLE, encoding="utf-8")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml")),
        *("run", str(folder / "page.json"), "--url", url, "--max-examples", str(examples)),
        *("--phases", phases),
        *("--seed", str(seed), "--generation-database", "none", "--continue-on-failure", "--no-color"),
        *("--warnings", "off", "--output-sanitize", "false"),
    ]
    if key is not None:
        command += ["--header", f"Authorization: Bearer {key}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    return done.returncode, done.stdout + done.stderr
