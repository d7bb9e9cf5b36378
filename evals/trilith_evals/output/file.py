"""Writes the report as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from trilith_evals.atomic import write
from trilith_evals.report import Report


def write_json(report: Report, path: Path) -> None:
    """Write everything that the run found as JSON."""
    write(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False, default=str) + "\n")
