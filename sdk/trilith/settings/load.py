"""Makes the settings of one process: argument over environment over file over default, then checks them.

Reads one file and the environment and changes nothing, so a wrong file can never half-start anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trilith.errors import SettingsError
from trilith.settings.document import Document, read_document
from trilith.settings.environment import dotted_path, variables
from trilith.settings.fault import Fault, KeyPath, Origin, refusal
from trilith.settings.schema import Settings
from trilith.settings.section import Section
from trilith.settings.shape import ROOT, Place
from trilith.settings.verdict import faults_of, mistaken_faults

DEFAULT_FILE = Path("trilith.yaml")
FILE_VARIABLE = "TRILITH_SETTINGS"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings that passed every check, and where they came from."""

    settings: Settings
    """Every path in it is absolute."""
    path: Path | None
    """The file that was read; None when there is none and no one named one."""
    sources: dict[str, str]
    """For every value, dotted key to `default`, `trilith.yaml:12`, `env TRILITH_HOME` or `argument`."""


def load_settings(
    path: Path | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Read, merge and check the settings.

    Args:
        path: The settings file; None takes `$TRILITH_SETTINGS`, then `./trilith.yaml` if there is one.
        overrides: Dotted key to value, such as `{"gateway.port": 0}`. Stronger than all else.
        environ: Instead of the process's environment.

    Returns:
        The settings. Relative paths in the file count from the file's folder, those from the environment
        and from arguments from the current one.

    Raises:
        SettingsError: something is wrong; the message names every fault with file, line and key.
        MissingExtra: there is a file, and PyYAML is not installed.
    """
    environ = os.environ if environ is None else environ
    file = _file(path, environ)
    document = Document() if file is None else read_document(file, environ)
    data, origins, faults = document.data, document.origins, list(document.faults)
    _drop_empty_sections(data, ROOT)

    found, wrong = variables(environ, data)
    faults += wrong
    for at, (name, value) in found.items():
        _put(data, origins, at, value, Origin(f"env {name}"))
    for key, value in (overrides or {}).items():
        try:
            _put(data, origins, dotted_path(key, data), value, Origin("argument"))
        except ValueError as error:
            faults.append(Fault(Origin("argument"), "", str(error)))

    faults += mistaken_faults(data, origins)
    settings = _checked(data, origins, faults, file)
    folder = Path.cwd() if file is None else file.parent.absolute()
    absolute = _absolute(settings, (), origins, folder)
    sources = {
        ".".join(at): origins[at].place if at in origins else "default" for at, _, _ in leaves(absolute)
    }
    return LoadedSettings(absolute, file, sources)


def leaves(section: object, place: Place = ROOT, at: KeyPath = ()) -> Iterator[tuple[KeyPath, Place, object]]:
    """Yield every value of checked settings with its key and its place in the table, in the table's order."""
    if place.is_leaf or section is None:
        yield at, place, section
        return
    for name in place.names(section):
        value = section[name] if isinstance(section, Mapping) else getattr(section, name)
        below = place.child(name, section)
        assert below is not None  # it is among the names
        yield from leaves(value, below, (*at, name))


def _file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = environ.get(FILE_VARIABLE)
    if path is not None:
        chosen, how = Path(path), "--settings"
    elif named:
        chosen, how = Path(named), f"${FILE_VARIABLE}"
    else:
        return DEFAULT_FILE if DEFAULT_FILE.exists() else None
    if not chosen.is_file():
        what = "is a folder, not a file" if chosen.is_dir() else "does not exist"
        raise SettingsError(f"{chosen} {what}; {how} expected a settings file such as ./{DEFAULT_FILE}")
    return chosen


def _drop_empty_sections(data: dict[str, Any], place: Place) -> None:
    """Take `models:` with nothing under it (all commented out) as not written."""
    for name, value in list(data.items()):
        below = place.child(name, data)
        if below is None or below.is_leaf:
            continue
        if value is None and not below.optional:
            del data[name]
        elif isinstance(value, dict):
            _drop_empty_sections(value, below)


def _put(
    data: dict[str, Any], origins: dict[KeyPath, Origin], at: KeyPath, value: object, origin: Origin
) -> None:
    """Set one value; what it replaces, and where that came from, is forgotten."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            _put(data, origins, (*at, str(name)), part, origin)
        return
    inner = data
    for depth, step in enumerate(at[:-1], start=1):
        below = inner.setdefault(step, {})
        origins.setdefault(at[:depth], origin)
        if not isinstance(below, dict):
            return  # the file has a value where a section belongs; the check says so with its line
        inner = below
    for old in [key for key in origins if key[: len(at)] == at]:
        del origins[old]
    inner[at[-1]] = value
    origins[at] = origin


def _checked(
    data: dict[str, Any], origins: dict[KeyPath, Origin], faults: list[Fault], file: Path | None
) -> Settings:
    fallback = Origin("settings" if file is None else str(file))
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        known = {fault.key for fault in faults}
        more = faults_of(error, data, origins, fallback)
        raise refusal([*faults, *(fault for fault in more if fault.key not in known)]) from None
    if faults:
        raise refusal(faults)
    return settings


def _absolute(value: Any, at: KeyPath, origins: Mapping[KeyPath, Origin], folder: Path) -> Any:
    if isinstance(value, Path):
        origin = origins.get(at)
        from_file = origin is None or origin.line > 0
        return (folder if from_file else Path.cwd()) / value.expanduser()
    if isinstance(value, Section):
        changed = {
            name: _absolute(getattr(value, name), (*at, name), origins, folder)
            for name in type(value).model_fields
        }
        return value.model_copy(update=changed)
    if isinstance(value, dict):
        return {name: _absolute(v, (*at, name), origins, folder) for name, v in value.items()}
    return value
