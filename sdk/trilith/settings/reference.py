"""Writes the table of settings down: the reference page, and the JSON schema for editors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic_core import PydanticUndefined

from trilith.settings.environment import PREFIX
from trilith.settings.schema import Settings
from trilith.settings.shape import ROOT, Place, strip

ENTRY = "<name>"
ITEM = "[]"
_VARIABLE_TEXT = {"type": "string", "pattern": r"\$\{"}

_INTRODUCTION = """\
# Settings

One file, `trilith.yaml`, declares a platform. The strongest word wins: an argument over an environment
variable over the file over the default. `trilith settings` prints every value in force and where it came
from; `trilith settings --check` only checks.

- The file is the one that `--settings` names, else `$TRILITH_SETTINGS`, else `./trilith.yaml`.
- Relative paths in the file count from the file's folder, all others from the current one.
- Text may hold `${VARIABLE}` or `${VARIABLE:-default}`, filled in from the environment; `$${` stands for
  `${`. A variable that is not set is an error. Keep credentials there and not in the file.
- Every setting has an environment variable: `__` between levels, `_` for signs that a variable cannot
  hold (`models.bike-demand.policy` is `TRILITH_MODELS__BIKE_DEMAND__POLICY`). Lists are written with
  commas. Variables change what the file declares; they declare nothing new.
- Scalars follow YAML 1.2: `no` and `on` are text unless a boolean is expected.
- Editors check and complete the file with [settings.schema.json](settings.schema.json): begin the file
  with `# yaml-language-server: $schema=` and that file's path; `trilith settings --schema` prints it.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table."""

    key: str
    """Dotted, with `<name>` for the name of an entry and `[]` for each item of a list."""
    place: Place
    kinds: tuple[str, ...]
    """The kinds of models that have it; empty where there is no kind."""


def settings_table() -> list[Setting]:
    """Return every setting, in the order of the table."""
    merged: dict[str, Setting] = {}
    for setting in _walk(ROOT, "", ()):
        known = merged.get(setting.key)
        kinds = (known.kinds if known else ()) + setting.kinds
        merged[setting.key] = Setting(setting.key, setting.place, kinds)
    return list(merged.values())


def reference_page() -> str:
    """Return the reference page, Markdown, with a heading for every setting."""
    lines = [_INTRODUCTION]
    section = None
    for setting in settings_table():
        top = setting.key.partition(".")[0]
        if top != section and "." in setting.key:
            section = top
            lines.append(_section_heading(top))
        lines.append(_entry(setting, level=3 if "." in setting.key else 2))
    return "\n".join(lines)


def json_schema() -> str:
    """Return the JSON schema of a settings file; every value may also be written as `${VARIABLE}`."""
    schema = _with_variables(Settings.model_json_schema())
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "trilith.yaml"} | {
        key: value for key, value in schema.items() if key != "title"
    }
    return json.dumps(schema, indent=2) + "\n"


def _walk(place: Place, key: str, kinds: tuple[str, ...]) -> Iterator[Setting]:
    if place.is_leaf:
        yield Setting(key, place, kinds)
        if place.is_list and (item := Place(get_args(strip(place.annotation))[0])).sections:
            yield from _walk(item, f"{key}{ITEM}", kinds)
    elif place.entry is not None:
        yield from _walk(Place(place.entry, place.field), f"{key}.{ENTRY}", kinds)
    else:
        for section, kind in zip(place.sections, place.kinds or [""] * len(place.sections), strict=True):
            for name, field in section.model_fields.items():
                below = Place(field.annotation, field)
                yield from _walk(below, f"{key}.{name}".lstrip("."), (kind,) if kind else kinds)


def _section_heading(top: str) -> str:
    place = ROOT.child(top, {})
    assert place is not None  # it is among the table's keys
    assert place.field is not None
    if place.entry is None:
        return f"## `{top}`\n\n{place.field.description}\n"
    entries = Place(place.entry)
    told = [f"{place.field.description}"]
    if entries.kinds:
        told.append("")
        for section, kind in zip(entries.sections, entries.kinds, strict=True):
            told.append(f"- `kind: {kind}`: {section.__doc__}")
    elif entries.sections[0].__doc__:
        told.append(entries.sections[0].__doc__)
    return f"## `{top}.{ENTRY}`\n\n" + "\n".join(told) + "\n"


def _entry(setting: Setting, *, level: int) -> str:
    field = setting.place.field
    description = field.description if field else ""
    facts = [f"- Value: {setting.place.expected}{', or null' if setting.place.optional else ''}"]
    if setting.key == f"models.{ENTRY}.kind":
        facts = [f"- Value: one of {', '.join(setting.kinds)}"]
        description = "What the model is; decides which settings it has."
    elif setting.kinds:
        facts.append(f"- Kinds: {', '.join(dict.fromkeys(setting.kinds))}")
    facts.append(f"- Default: {_default(setting.place)}")
    if ITEM not in setting.key:
        facts.append(f"- Environment: `{_variable(setting.key)}`")
    return f"{'#' * level} `{setting.key}`\n\n{description}\n\n" + "\n".join(facts) + "\n"


def _default(place: Place) -> str:
    value = PydanticUndefined if place.field is None else place.field.default
    if value is PydanticUndefined:
        return "none, it must be given"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    return f"`{value}`"


def _variable(key: str) -> str:
    return PREFIX + "__".join("<NAME>" if step == ENTRY else step.upper() for step in key.split("."))


def _with_variables(node: Any) -> Any:
    """Let `${VARIABLE}` stand wherever the schema wants a number, a boolean or one of some words."""
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        extra = [_VARIABLE_TEXT] if _refuses_variables(node["anyOf"]) else []
        return node | {"anyOf": [*node["anyOf"], *extra]}
    if _is_scalar(node):
        told = {key: node[key] for key in ("title", "description", "default") if key in node}
        return told | {"anyOf": [{k: v for k, v in node.items() if k not in told}, _VARIABLE_TEXT]}
    skipped = ("default", "propertyNames", "required", "discriminator")
    return {key: value if key in skipped else _with_variables(value) for key, value in node.items()}


def _refuses_variables(options: Sequence[dict[str, Any]]) -> bool:
    any_text = any(option.get("type") == "string" and "pattern" not in option for option in options)
    return any(_is_scalar(option) for option in options) and not any_text


def _is_scalar(node: dict[str, Any]) -> bool:
    return node.get("type") in ("integer", "number", "boolean") or "enum" in node
