"""Answers kept between runs, by the content of what was asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Cache:
    """A folder with a file per answer; several runs may share it."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is made with the first answer."""
        self._folder = folder

    def get(self, key: str) -> Any:
        """Return what was kept under a key; None for nothing, or for a file that is damaged."""
        try:
            return json.loads(self._path(key).read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value; readers see all of it or nothing."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(json.dumps(value, separators=(",", ":")).encode())
        unfinished.replace(path)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
