"""What a scorer is made of: its code and its settings. Runs whose scorers differ share no journal."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trilith.types import Json

_OWN = ("trilith.", "trilith_")


def provenance(scorer: Any) -> Json:
    """Return name, code and settings of a scorer as JSON, the same in every process.

    Settings are what its constructor takes, as far as the scorer keeps them under the same name (or with a
    `_` before it) and they are plain; what a scorer opens or learns is no part of it. A scorer with a method
    `identity()` says itself what they are. The code of ours is its version, that of others the digest of the
    module's source: a changed rule is another scorer.
    """
    made = scorer if inspect.isroutine(scorer) else type(scorer)
    module = str(getattr(made, "__module__", ""))
    own = getattr(scorer, "identity", None)
    return {
        "scorer": f"{module}:{getattr(made, '__qualname__', '')}",
        "code": _version() if f"{module}.".startswith(_OWN) else _source(module),
        "settings": own() if callable(own) else _settings(scorer),
    }


def _settings(scorer: Any) -> Json:
    if inspect.isroutine(scorer):
        return None
    try:
        taken = list(inspect.signature(type(scorer).__init__).parameters)[1:]
    except (TypeError, ValueError):  # made in C
        return None
    found: dict[str, Json] = {}
    files = getattr(type(scorer), "paths", ())
    for name in ["settings", *taken]:
        value = getattr(scorer, name, getattr(scorer, f"_{name}", None))
        if value is not None:
            with contextlib.suppress(TypeError):  # a client, a model: what it says is not in its name
                found[name] = _content(value) if name in files else _plain(value)
    return found


def _plain(value: Any) -> Json:
    """Return a value as JSON.

    Raises:
        TypeError: it is an object that may hold anything.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, map(_plain, value)))
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "pattern"):  # a compiled expression
        return str(value.pattern)
    if hasattr(value, "model_dump"):
        dumped: Json = value.model_dump(mode="json")
        return dumped
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}:{value.__qualname__}"
    raise TypeError(f"a {type(value).__name__} is not plain")


def _content(path: Any) -> Json:
    """Return the digest of a file that a setting names."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return str(path)


@functools.cache
def _version() -> str:
    try:
        return f"trilith {version('trilith')}"
    except PackageNotFoundError:  # a checkout that is on the path and not installed
        return "trilith"


def _source(module: str) -> str:
    """Return the digest of a module's file; empty for code that has none, as in a shell."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file:
        return ""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""
