"""Finds its way through the table of settings: which key holds what, and how to say so in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from trilith.settings.schema import Settings
from trilith.settings.section import Section

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Decimal: "a decimal number >= 0",
    str: "text",
    SecretStr: "text",
    Path: "a path",
}


@dataclass(frozen=True, slots=True)
class Place:
    """What the table says about one key."""

    annotation: Any
    field: FieldInfo | None = None
    """None for the whole table; values under names have the field that holds them all."""

    @property
    def sections(self) -> tuple[type[Section], ...]:
        """The sections that may stand here: none at a leaf, several where `kind` decides."""
        bare = strip(self.annotation)
        options = get_args(bare) if _is_union(bare) else (bare,)
        return tuple(o for o in options if isinstance(o, type) and issubclass(o, Section))

    @property
    def entry(self) -> Any | None:
        """What stands under each name, where this place holds named entries."""
        bare = strip(self.annotation)
        return get_args(bare)[1] if get_origin(bare) is dict else None

    @property
    def is_leaf(self) -> bool:
        """Whether this place holds one value."""
        return not self.sections and self.entry is None

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return get_origin(strip(self.annotation)) is tuple

    @property
    def optional(self) -> bool:
        """Whether null is a value here."""
        return NoneType in get_args(self.annotation)

    @property
    def secret(self) -> bool:
        """Whether the value is a credential."""
        return strip(self.annotation) is SecretStr

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values, where they are listed."""
        bare = strip(self.annotation)
        return tuple(str(value) for value in get_args(bare)) if get_origin(bare) is Literal else ()

    @property
    def expected(self) -> str:
        """The values that may stand here, in words."""
        return expected(self.annotation, self.field.metadata if self.field else ())

    @property
    def kinds(self) -> tuple[str, ...]:
        """What `kind` may be, where it decides which section stands here."""
        fields = [section.model_fields["kind"] for section in self.sections if len(self.sections) > 1]
        return tuple(str(value) for field in fields for value in get_args(field.annotation))

    def child(self, name: str, given: object) -> Place | None:
        """Return the place below under `name`, or None when the table has none.

        Args:
            name: A field of a section, or the name of an entry.
            given: The value that stands here, whose `kind` chooses among the sections.
        """
        if self.entry is not None:
            return Place(self.entry, self.field)
        if self.is_list:
            return Place(get_args(strip(self.annotation))[0])
        for section in self.chosen(given):
            if name in section.model_fields:
                field = section.model_fields[name]
                return Place(field.annotation, field)
        return None

    def chosen(self, given: object) -> tuple[type[Section], ...]:
        """Return the sections that `given` can be: one when its `kind` is known, else all."""
        kind = given.get("kind") if isinstance(given, Mapping) else getattr(given, "kind", None)
        for section in self.sections:
            if len(self.sections) > 1 and kind in get_args(section.model_fields["kind"].annotation):
                return (section,)
        return self.sections

    def names(self, given: object) -> tuple[str, ...]:
        """Return the keys that may stand below: a section's fields, or the entries that exist."""
        if self.entry is not None:
            return tuple(str(name) for name in given) if isinstance(given, Mapping) else ()
        return tuple(dict.fromkeys(name for s in self.chosen(given) for name in s.model_fields))


ROOT = Place(Settings)


def place_at(path: Sequence[str], data: object) -> Place | None:
    """Return what the table says about `path`, or None when there is no such key.

    Args:
        path: Keys from the outermost in.
        data: The tree of values, for the kinds of models.
    """
    place: Place | None = ROOT
    for step in path:
        if place is None:
            return None
        place = place.child(step, data)
        data = data.get(step) if isinstance(data, Mapping) else None
    return place


def strip(annotation: Any) -> Any:
    """Remove `Annotated[...]` and `| None` from a type."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif _is_union(annotation) and NoneType in get_args(annotation):
            (annotation,) = (a for a in get_args(annotation) if a is not NoneType)
        else:
            return annotation


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words which values a type and its bounds allow."""
    bare = strip(annotation)
    if get_origin(bare) is Literal:
        values = [str(value) for value in get_args(bare)]
        return values[0] if len(values) == 1 else "one of " + ", ".join(values)
    if get_origin(bare) is tuple:
        return "a list of " + expected(get_args(bare)[0])
    if get_origin(bare) is dict or Place(bare).sections:
        return "a mapping"
    words = _WORDS[bare]
    return " ".join((words, *_bounds(metadata)))


def _bounds(metadata: Sequence[Any]) -> list[str]:
    limits = {
        name: getattr(m, name) for m in metadata for name in ("ge", "gt", "le", "lt") if hasattr(m, name)
    }
    if "ge" in limits and "le" in limits:
        return [f"from {limits['ge']} to {limits['le']}"]
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [f"{signs[name]} {limit}" for name, limit in limits.items()]
    return [" and ".join(said)] if said else []


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)
