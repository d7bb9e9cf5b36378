"""Turns what pydantic refused into faults that name file, line, key, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from trilith.settings.between import ReferenceFaults, reference_faults
from trilith.settings.fault import Fault, KeyPath, Origin, did_you_mean, found
from trilith.settings.shape import ROOT, Place, place_at, strip

_NAME = "a name of letters, digits and . _ / -, at most 128 characters"


def faults_of(
    error: ValidationError, data: Mapping[str, Any], origins: Mapping[KeyPath, Origin], fallback: Origin
) -> list[Fault]:
    """List every fault of settings that did not pass.

    Args:
        error: What pydantic found.
        data: The tree that was checked.
        origins: Where each key stands; a missing key is reported at the section that lacks it.
        fallback: The origin where no key around is known.
    """
    faults = []
    for details in error.errors(include_url=False):
        inner = details.get("ctx", {}).get("error")
        if isinstance(inner, ReferenceFaults):
            continue
        path = _path(details["loc"])
        if details["type"].startswith("union_tag"):
            path = (*path, "kind")
        message = _message(details, path, data, origins)
        faults.append(Fault(_origin(path, origins, fallback), ".".join(path), message))
    # pydantic looks at references only when all else is right; a reader wants to hear of them at once.
    for path, message in reference_faults(data):
        faults.append(Fault(_origin(path, origins, fallback), ".".join(path), message))
    return faults


def mistaken_faults(
    data: Mapping[str, Any], origins: Mapping[KeyPath, Origin], at: KeyPath = (), place: Place = ROOT
) -> Iterator[Fault]:
    """Yield what Python would take for something else: true for 1, an empty text for the current folder."""
    for name, value in data.items():
        below, path = place.child(name, data), (*at, name)
        if below is None:
            continue
        if isinstance(value, Mapping) and not below.is_leaf:
            yield from mistaken_faults(value, origins, path, below)
        bare = strip(below.annotation)
        if (isinstance(value, bool) and bare in (int, float, Decimal)) or (value == "" and bare is Path):
            message = f"found {found(value)}, expected {below.expected}"
            yield Fault(origins.get(path, Origin("argument")), ".".join(path), message)


def _path(loc: Sequence[int | str]) -> KeyPath:
    """Return pydantic's location as a key: without the kind of model that it puts behind the name."""
    path = tuple(str(step) for step in loc)
    if path[-1:] == ("[key]",):
        return path[:-1]
    return path[:2] + path[3:] if path[0] == "models" and len(path) > 2 else path


def _origin(path: KeyPath, origins: Mapping[KeyPath, Origin], fallback: Origin) -> Origin:
    for depth in range(len(path), 0, -1):
        if path[:depth] in origins:
            return origins[path[:depth]]
    return fallback


def _message(
    details: ErrorDetails, path: KeyPath, data: Mapping[str, Any], origins: Mapping[KeyPath, Origin]
) -> str:
    place = place_at(path, data)
    words = place.expected if place else "another value"
    match details["type"]:
        case "extra_forbidden":
            return _unknown(path, data)
        case "string_pattern_mismatch" if details["loc"][-1] == "[key]":
            return f"found {found(path[-1])} as a name, expected {_NAME}"
        case "missing":
            return f"is missing, expected {words}"
        case "union_tag_not_found" | "union_tag_invalid":
            return _kind(details["input"], place_at(path[:-1], data))
        case "value_error":
            reason = str(details.get("ctx", {}).get("error", details["msg"]))
            if place is None or not place.is_leaf:
                return reason
        case "literal_error":
            reason = f"expected {words}{did_you_mean(str(details['input']), place.choices if place else ())}"
        case _:
            reason = f"expected {words}"
    origin = origins.get(path)
    given = found(
        details["input"], secret=place is None or place.secret, written=origin.written if origin else None
    )
    return f"found {given}, {reason}"


def _unknown(path: KeyPath, data: Mapping[str, Any]) -> str:
    # The value is not shown: behind a misspelt `api_key` stands a credential.
    given: Any = data
    for step in path[:-1]:
        given = given[step]
    above = place_at(path[:-1], data)
    names = above.names(given) if above else ()
    return "unknown key" + (did_you_mean(path[-1], names) or f"; expected one of {', '.join(names)}")


def _kind(model: object, place: Place | None) -> str:
    names = place.kinds if place else ()
    expected = f"expected one of {', '.join(names)}"
    kind = model.get("kind") if isinstance(model, Mapping) else None
    if kind is None:
        return f"is missing, {expected}"
    return f"found {found(kind)}, {expected}{did_you_mean(kind, names) if isinstance(kind, str) else ''}"
