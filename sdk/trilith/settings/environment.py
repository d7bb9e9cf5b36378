"""Which environment variable and which dotted argument means which setting.

`TRILITH_GATEWAY__PORT` is `gateway.port`: two underscores between levels, upper or lower case alike, and
an underscore for every sign in a name that a variable cannot hold (`bike-demand` is `BIKE_DEMAND`).
Variables change what the file declares; they declare no new models, engines or policies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from trilith.settings.fault import Fault, KeyPath, Origin, did_you_mean
from trilith.settings.shape import ROOT, Place

PREFIX = "TRILITH_"
RESERVED = frozenset({"TRILITH_SETTINGS", "TRILITH_BASE_URL", "TRILITH_API_KEY", "TRILITH_DATA_HOME"})
"""Variables of this prefix that are no settings."""

# Kubernetes tells every pod of its neighbours; a Service called trilith-gateway makes a TRILITH_GATEWAY_PORT
# (kubernetes.io, Service, "Discovering services: environment variables").
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?$"
)
_SERVICE_URL = re.compile(r"^(tcp|udp|sctp)://")


def variables(
    environ: Mapping[str, str], data: Mapping[str, Any]
) -> tuple[dict[KeyPath, tuple[str, Any]], list[Fault]]:
    """Find the settings in the environment.

    Args:
        environ: The process's environment.
        data: What the file says, for the names of models, engines and the like.

    Returns:
        Key to (variable, value), and the variables that look like settings and are none.
    """
    values: dict[KeyPath, tuple[str, Any]] = {}
    faults: list[Fault] = []
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or name in RESERVED or _service_link(name, text):
            continue
        origin = Origin(f"env {name}")
        segments = name.removeprefix(PREFIX).split("__")
        if len(segments) == 1 and not _resembles_a_setting(segments[0]):
            continue
        try:
            path, place = _variable_path(segments, data)
            values[path] = (name, _value(text, place))
        except ValueError as error:
            faults.append(Fault(origin, "", str(error)))
    return values, faults


def dotted_path(key: str, data: Mapping[str, Any]) -> KeyPath:
    """Return the path of a dotted key; names that exist may hold dots themselves.

    Raises:
        ValueError: the table has no such key.
    """
    place, given, rest = ROOT, data, key.split(".")
    steps: list[str] = []
    while rest:
        names = place.names(given)
        taken = next((n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in names), 1)
        step = ".".join(rest[:taken])
        below = place.child(step, given) if not place.is_leaf else None
        if below is None:
            raise ValueError(f"unknown setting {key!r}{did_you_mean(step, names)}")
        steps.append(step)
        place, rest = below, rest[taken:]
        inner = given.get(step)
        given = inner if isinstance(inner, Mapping) else {}
    return tuple(steps)


def variable_name(path: KeyPath) -> str:
    """Return the variable that sets a key."""
    return PREFIX + "__".join(_folded(step) for step in path)


def _variable_path(segments: list[str], data: Mapping[str, Any]) -> tuple[KeyPath, Place]:
    place, given, rest = ROOT, data, segments
    steps: list[str] = []
    while rest and not place.is_leaf:
        names = place.names(given)
        matches, taken = _matches(rest, names)
        if not matches:
            raise ValueError(_unknown(steps, rest, place, names))
        if len(matches) > 1:
            raise ValueError(f"{' and '.join(matches)} are spelled alike here; set it in the file")
        steps.append(matches[0])
        below = place.child(matches[0], given)
        assert below is not None  # it is among the names
        inner = given.get(matches[0])
        place, rest, given = below, rest[taken:], inner if isinstance(inner, Mapping) else {}
    here = ".".join(steps)
    if rest:
        raise ValueError(f"{here} is one value, it has no {'__'.join(rest)}")
    if not place.is_leaf:
        raise ValueError(
            f"{here} is a section; expected one of its settings, such as {_example(steps, place, given)}"
        )
    return tuple(steps), place


def _matches(rest: list[str], names: tuple[str, ...]) -> tuple[list[str], int]:
    for taken in range(len(rest), 0, -1):
        wanted = _folded("__".join(rest[:taken]))
        found = [name for name in names if _folded(name) == wanted]
        if found:
            return found, taken
    return [], 0


def _unknown(steps: list[str], rest: list[str], place: Place, names: tuple[str, ...]) -> str:
    if place.entry is not None:
        declared = ", ".join(names) or "none"
        return f"nothing under {'.'.join(steps)} is called {rest[0].lower()!r}; the file declares {declared}"
    prefix = PREFIX + "".join(f"{_folded(s)}__" for s in steps)
    return "no such setting" + did_you_mean(
        prefix + "__".join(rest).upper(), _spellings(prefix, place, names)
    )


def _spellings(prefix: str, place: Place, names: tuple[str, ...]) -> list[str]:
    """Every variable one and two levels down: a single underscore is the usual slip."""
    spelled = []
    for name in names:
        spelled.append(prefix + _folded(name))
        below = place.child(name, {})
        if below is not None and below.sections:
            spelled += [f"{prefix}{_folded(name)}__{_folded(n)}" for n in below.names({})]
    return spelled


def _example(steps: list[str], place: Place, given: Mapping[str, Any]) -> str:
    names = place.names(given) or ("name",)
    return variable_name((*steps, names[0]))


def _resembles_a_setting(segment: str) -> bool:
    """Whether a name without `__` is a setting, a slip for one, or none of our business.

    A section cannot be set as a whole, so `TRILITH_MODEL` is no slip for `TRILITH_MODELS`.
    """
    folded = _folded(segment)
    places = {_folded(name): ROOT.child(name, {}) for name in ROOT.names({})}
    leaves = [name for name, place in places.items() if place is not None and place.is_leaf]
    near_a_section = any(folded == name or folded.startswith(f"{name}_") for name in places)
    return near_a_section or bool(did_you_mean(folded, leaves))


def _service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and bool(_SERVICE_URL.match(text)))


def _value(text: str, place: Place) -> Any:
    if text == "" and place.optional:
        return None
    if not place.is_list:
        return text
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"expected a JSON list or values with commas between them: {error}") from error
    return [part.strip() for part in text.split(",") if part.strip()]


def _folded(name: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", name.upper())
