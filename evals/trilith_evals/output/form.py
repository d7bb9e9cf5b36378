"""The forms in which a report is written, by name; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trilith.errors import TrilithError

if TYPE_CHECKING:
    from trilith_evals.report import Report

_WRITERS: Mapping[str, str] = {
    "html": "trilith_evals.output.page:write_page",
    "json": "trilith_evals.output.file:write_json",
    "markdown": "trilith_evals.output.markdown:write_markdown",
    "junit": "trilith_evals.output.junit:write_junit",
}


def write(report: Report, paths: Mapping[str, Path | None]) -> None:
    """Write a report in every form that has a path.

    Raises:
        TrilithError: a file cannot be written.
    """
    for form, path in paths.items():
        if path is None:
            continue
        module, _, name = _WRITERS[form].partition(":")
        try:
            getattr(importlib.import_module(module), name)(report, path)
        except OSError as error:
            raise unwritable(error) from error


def unwritable(error: OSError) -> TrilithError:
    """Return what is said of a file that cannot be written."""
    return TrilithError(f"cannot write {error.filename}: {(error.strerror or str(error)).lower()}")
