"""Answers kept between runs, by the content of what was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trilith.errors import SettingsError
from trilith_evals import atomic


class Cache:
    """A folder with a file per answer; several runs may share it."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is made with the first answer."""
        self._folder = folder

    def get(self, key: str) -> Any:
        """Return what was kept under a key; None for nothing, or for a file that is damaged."""
        try:
            return json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value; readers see all of it or nothing.

        Raises:
            SettingsError: the folder cannot be written; no fault of the target, whose answer it is.
        """
        try:
            atomic.write(self._path(key), json.dumps(value, separators=(",", ":")).encode())
        except OSError as error:
            raise SettingsError(
                f"cannot keep answers in {self._folder}: {(error.strerror or str(error)).lower()}; "
                "name a folder that can be written"
            ) from error

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
