"""Keeps runs by suite and name in a folder, for later ones to be held against."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from trilith.errors import DataError, SettingsError, TrilithError
from trilith_evals.output.file import write_json
from trilith_evals.published import PREFIX, suites_of
from trilith_evals.recorded import RecordedSuite, read
from trilith_evals.report import Report

_LONGEST = 200
"""Characters of a name in its file's name; file systems take 255 bytes, the process beside it included."""


class Shelf:
    """The folder: `<suite>/<name>.json`."""

    def __init__(self, folder: Path, base_url: str | None = None, api_key: str | None = None) -> None:
        """Take the folder, made when the first run is kept; and the gateway that may have others."""
        self._folder = folder
        self._gateway = base_url, api_key

    def refuse_name(self, name: str) -> None:
        """Refuse a name that no file can have.

        Raises:
            SettingsError: it has no letter or digit, or is too long.
        """
        if not any(sign.isalnum() for sign in name):
            raise SettingsError(f"a run cannot be kept as {name!r}, expected letters or digits in its name")
        if len(quote(name, safe="")) > _LONGEST:
            raise SettingsError(
                f"a run cannot be kept under a name of {len(name)} characters; take a shorter one"
            )

    def keep(self, report: Report, name: str) -> list[Path]:
        """Write each suite of a run; what stood there under that name is replaced.

        Raises:
            TrilithError: the folder cannot be written, or HEAD was asked for where git knows none.
        """
        if name == "HEAD":
            name = _commit(name) or name
            if name == "HEAD":
                raise TrilithError(
                    "git knows no commit here to keep the run under; give a name instead of HEAD"
                )
        kept = []
        for suite in report.suites:
            path = self._place(suite.name, name)
            try:
                write_json(replace(report, suites=(suite,)), path)
            except OSError as error:
                raise TrilithError(f"cannot keep the run in {path}: {error.strerror or error}") from error
            kept.append(path)
        return kept

    def find(self, named: str, suites: Sequence[str]) -> dict[str, RecordedSuite]:
        """Return a run's suites by name.

        Args:
            named: A run on the gateway (`gateway:ID`), a file that `--json` has written,
                a name that a run was kept under, or a commit, branch or
                tag of git whose commit a run was kept under.
            suites: The suites that are wanted.

        Raises:
            DataError: there is no such run of one of the suites, or it cannot be read.
        """
        on_gateway = named.startswith(PREFIX)
        if on_gateway or Path(named).suffix == ".json" or Path(named).is_file():
            found = suites_of(named, *self._gateway) if on_gateway else read(Path(named))
            missing = [suite for suite in suites if suite not in found]
            if missing:
                raise DataError(f"{named} has no suite {missing[0]!r}, but {', '.join(found)}")
            return {suite: found[suite] for suite in suites}
        return {suite: self._of(suite, named) for suite in suites}

    def _of(self, suite: str, named: str) -> RecordedSuite:
        path = self._place(suite, named)
        if not path.is_file() and (commit := _commit(named)):
            path = self._place(suite, commit)
        if not path.is_file():
            there = sorted(kept.stem for kept in (self._folder / quote(suite, safe="")).glob("*.json"))
            has = ", ".join(there) or "none"
            raise DataError(
                f"no run {named!r} of the suite {suite} in {self._folder}, which has {has}; "
                f"make one where {named} is: trilith eval run FILE --save-as {named}"
            )
        return read(path)[suite]

    def _place(self, suite: str, name: str) -> Path:
        # A branch may be called feature/x; a name must not climb out of the folder.
        return self._folder / quote(suite, safe="") / f"{quote(name, safe='').lstrip('.')}.json"


def _commit(named: str) -> str | None:
    """Return the commit that git knows under this name, here; None where it knows none, or is not there."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{named}^{{commit}}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None
