"""A model registry that lasts as long as its object: the twin of the one on MLflow."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from trilith.errors import DataError, IntegrityError
from trilith.types import RegisteredModel

_FILES = ("model.onnx", "model.skops", "manifest.json")


class MemoryRegistry:
    """Keeps versions and aliases in memory, and the artefacts in a temporary folder that goes with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="trilith-registry-", ignore_cleanup_errors=True)
        self._digests: dict[str, list[dict[str, str]]] = {}
        self._aliases: dict[tuple[str, str], str] = {}
        self.tags: dict[tuple[str, str], dict[str, str]] = {}
        """What each version was registered with, by name and version."""

    def register(self, name: str, folder: str, *, tags: Mapping[str, str]) -> RegisteredModel:
        """Copy the artefacts in `folder` as the next version of `name`.

        Raises:
            DataError: the folder lacks a file.
        """
        source = Path(folder)
        for file in _FILES:
            if not (source / file).is_file():
                raise DataError(f"{source} holds no {file}; expected {', '.join(_FILES)}")
        versions = self._digests.setdefault(name, [])
        version = str(len(versions) + 1)
        place = self._place(name, version)
        shutil.copytree(source, place)
        versions.append({file: _digest(place / file) for file in _FILES})
        self.tags[name, version] = dict(tags)
        return RegisteredModel(name, version, None, str(place), versions[-1]["model.onnx"])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point `alias` at `version`.

        Raises:
            DataError: there is no such version.
        """
        if (name, version) not in self.tags:
            raise DataError(f"there is no version {version!r} of {name!r}")
        self._aliases[name, alias] = version

    def alias_version(self, name: str, alias: str) -> str | None:
        """Return the version that `alias` names, None where there is none."""
        return self._aliases.get((name, alias))

    def resolve(self, name: str, alias: str) -> RegisteredModel:
        """Return what `alias` names, after its files were held against their digests.

        Raises:
            DataError: no such model or alias.
            IntegrityError: a file is missing or is not the one that was registered.
        """
        version = self.alias_version(name, alias)
        if version is None:
            raise DataError(f"no version of {name!r} has the alias {alias!r}; register one and set it")
        place, digests = self._place(name, version), self._digests[name][int(version) - 1]
        for file, digest in digests.items():
            if not (place / file).is_file() or _digest(place / file) != digest:
                raise IntegrityError(
                    f"{place / file} is not what was registered as version {version} of {name!r}"
                )
        return RegisteredModel(name, version, alias, str(place), digests["model.onnx"])

    def _place(self, name: str, version: str) -> Path:
        return Path(self._folder.name) / hashlib.sha256(name.encode()).hexdigest()[:16] / version


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
