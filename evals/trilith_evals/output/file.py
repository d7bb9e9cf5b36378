"""Writes text files whole or not at all, and the report as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trilith_evals.report import Report


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that no reader meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # A model may answer with lone surrogates, which UTF-8 cannot hold.
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(report: Report, path: Path) -> None:
    """Write everything that the run found as JSON."""
    write_text(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False, default=str) + "\n")
