"""GitHub Actions: annotations as workflow commands, and the job's summary.

The commands' form and escaping are those of actions/toolkit (packages/core/src/command.ts): `%`, CR and LF
everywhere, in properties `:` and `,` too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from trilith_evals.gate import Check, Outcome
from trilith_evals.output.form import unwritable
from trilith_evals.output.markdown import markdown
from trilith_evals.report import Report

_LEVELS = {
    Outcome.FAIL: "error",
    Outcome.COULD_NOT_RUN: "error",
    Outcome.NO_EVIDENCE: "warning",
}
_MOST = 10
"""GitHub shows ten annotations of a level per step."""
_SUMMARY_BYTES = 1_000_000
"""GitHub takes a summary of 1 MiB at most, and drops a larger one whole."""


def commands(report: Report, file: Path | None = None) -> str:
    """Return a workflow command per check that did not pass, with the suite's place in its file.

    Args:
        report: The run.
        file: The suite file; None for a run without one.
    """
    places = _lines(file) if file else {}
    told: list[str] = []
    counted: dict[str, int] = {}
    for suite in report.suites:
        compared = (line.check for line in suite.lines if line.check not in suite.checks)
        for check in [*suite.checks, *compared]:
            level = _LEVELS.get(check.outcome)
            if level is None:
                continue
            counted[level] = counted.get(level, 0) + 1
            if counted[level] <= _MOST:
                told.append(_command(level, suite.name, check, file, places.get(suite.name)))
    left = sum(max(0, n - _MOST) for n in counted.values())
    if left:
        told.append(f"::notice title=trilith eval::{left} more checks did not pass; the summary has them all")
    return "\n".join(dict.fromkeys(told))


def append_summary(report: Report, environment: Mapping[str, str] = os.environ) -> bool:
    """Append the Markdown to the job's summary; False where there is no such file."""
    path = environment.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    text = markdown(report)
    if len(text.encode("utf-8", "replace")) > _SUMMARY_BYTES:
        text = "The evaluation's summary is too large for GitHub; `--markdown PATH` writes it to a file.\n"
    with Path(path).open("a", encoding="utf-8", errors="replace") as summary:
        summary.write(text + "\n")
    return True


def tell(report: Report, file: Path | None = None) -> None:
    """Annotate on standard output, and append to the job's summary."""
    try:
        append_summary(report)
    except OSError as error:
        raise unwritable(error) from error
    print(commands(report, file))


def _command(level: str, suite: str, check: Check, file: Path | None, line: int | None) -> str:
    properties = {"title": f"{suite}: {check.outcome.value}: {check.name}"}
    if file is not None:
        properties = {"file": _relative(file), **({"line": str(line)} if line else {}), **properties}
    told = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{level} {told}::{_data(check.message)}"


def _relative(file: Path) -> str:
    workspace = Path(os.environ.get("GITHUB_WORKSPACE", Path.cwd()))
    whole = file.absolute()
    return (whole.relative_to(workspace) if whole.is_relative_to(workspace) else file).as_posix()


def _lines(file: Path) -> Mapping[str, int]:
    """Return the line on which each suite's name stands."""
    from trilith.settings.document import read_document

    try:
        document = read_document(file, os.environ, extra="evals")
    except Exception:  # a run that was read back may name a file that is gone; the annotation does without
        return {}
    suites = document.data.get("suites", ())
    found = {}
    for number, suite in enumerate(suites if isinstance(suites, Iterable) else ()):
        origin = document.origins.get(("suites", str(number), "name"))
        if origin is not None and origin.line:
            found[str(suite["name"])] = origin.line
    return found


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
