"""Shows settings in force: every value, redacted, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from trilith.settings.fault import HIDDEN, without_userinfo
from trilith.settings.load import LoadedSettings, leaves
from trilith.settings.shape import Place

Shown: TypeAlias = str | int | float | bool | list[str] | None
"""A value that may be printed."""

_CREDENTIAL_FLAG = re.compile(r"^-.*(key|token|secret|password)", re.IGNORECASE)


def shown_values(loaded: LoadedSettings) -> Iterator[tuple[str, Shown, str]]:
    """Yield dotted key, value without credentials, and source, in the table's order."""
    for at, place, value in leaves(loaded.settings):
        key = ".".join(at)
        yield key, shown(value, place), loaded.sources[key]


def shown(value: object, place: Place) -> Shown:
    """Return a value as it may be printed: credentials and passwords in URLs are hidden."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if place.secret:
        return HIDDEN
    if isinstance(value, tuple):
        return _without_credentials([str(item) for item in value])
    return without_userinfo(str(value))


def as_text(loaded: LoadedSettings) -> str:
    """Return the settings as a table of three columns."""
    rows = [(key, _cell(value), source) for key, value, source in shown_values(loaded)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    # A long list would push the last column off the screen for every other line.
    wide, narrow = min(widths[0], 60), min(widths[1], 48)
    title = f"# {loaded.path}" if loaded.path else "# no settings file; defaults, environment and arguments"
    lines = [f"{key:<{wide}}  {value:<{narrow}}  {source}" for key, value, source in rows]
    return "\n".join([title, *lines])


def as_tree(loaded: LoadedSettings) -> dict[str, object]:
    """Return the settings for JSON: `{"path": ..., "settings": {key: {"value": ..., "source": ...}}}`."""
    values = {key: {"value": value, "source": source} for key, value, source in shown_values(loaded)}
    return {"path": str(loaded.path) if loaded.path else None, "settings": values}


def _cell(value: Shown) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


def _without_credentials(items: Sequence[str]) -> list[str]:
    """Hide what follows a flag such as `--api-key` on an engine's command line."""
    safe: list[str] = []
    hide_next = False
    for item in items:
        flag, equals, _ = item.partition("=")
        is_credential = bool(_CREDENTIAL_FLAG.match(flag))
        if hide_next and not item.startswith("-"):
            safe.append(HIDDEN)
        else:
            safe.append(f"{flag}={HIDDEN}" if is_credential and equals else without_userinfo(item))
        hide_next = is_credential and not equals
    return safe
