"""A folder with one settings file, and what loading it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from trilith.errors import SettingsError
from trilith.settings import LoadedSettings, load_settings


class SettingsFolder:
    """The current folder, and `trilith.yaml` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "trilith.yaml"

    def load(
        self, text: str, environ: Mapping[str, str] | None = None, **overrides: object
    ) -> LoadedSettings:
        """Load `text`; in the names of overrides `__` stands for a dot."""
        self.file.write_text(dedent(text), encoding="utf-8")
        dotted = {key.replace("__", "."): value for key, value in overrides.items()}
        return load_settings(environ=environ or {}, overrides=dotted)

    def refuse(self, text: str, environ: Mapping[str, str] | None = None, **overrides: object) -> list[str]:
        """Return what is wrong with `text`, one line for each fault."""
        with pytest.raises(SettingsError) as refused:
            self.load(text, environ, **overrides)
        lines = str(refused.value).splitlines()
        return lines if len(lines) == 1 else [line.strip() for line in lines[1:]]


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SettingsFolder:
    monkeypatch.chdir(tmp_path)
    return SettingsFolder(tmp_path)
