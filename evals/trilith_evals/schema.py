"""What a dataset promises of its columns, and the check of a row against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from trilith.errors import DataError
from trilith.types import Json
from trilith_evals.json_schema import Validator

Kind = Literal["text", "integer", "number", "boolean", "list", "mapping", "any"]

_LONGEST_SHOWN = 40


class ColumnSettings(BaseModel):
    """What one column holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: Kind = "any"
    """text, integer, number, boolean, list, mapping or any. Cells of a CSV file are read as it."""
    required: bool = True
    """Whether every row has a value here; null and a missing column are no values."""
    values: tuple[Any, ...] = ()
    """The values that may stand here; empty: any."""
    min: float | None = None
    """Smallest number."""
    max: float | None = None
    """Largest number."""
    min_length: int | None = Field(None, ge=0)
    """Fewest characters of a text, or items of a list."""
    max_length: int | None = Field(None, ge=0)
    """Most characters of a text, or items of a list."""
    pattern: str | None = None
    """Regular expression that a text matches as a whole."""
    unique: bool = False
    """Whether no value stands twice."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _ordered(self) -> ColumnSettings:
        for low, high in ((self.min, self.max), (self.min_length, self.max_length)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the smallest, {low:g}, is larger than the largest, {high:g}")
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "number"):
            raise ValueError("min and max are for the types integer and number")
        return self


class SchemaSettings(BaseModel):
    """What a dataset promises."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    columns: dict[str, ColumnSettings] = {}
    """By name."""
    only: bool = False
    """Whether no other column may stand in the data."""
    json_schema: dict[str, Any] | None = None
    """A JSON Schema (draft 2020-12) that every row keeps, beside `columns`."""


class Checker:
    """Holds rows against a schema, one after another."""

    def __init__(self, schema: SchemaSettings, *, texts: bool = False) -> None:
        """Take the schema.

        Args:
            schema: What is promised.
            texts: All values come as text, as CSV has them; they are read as their column's type.

        Raises:
            DataError: the JSON Schema is none.
            MissingExtra: there is one, and jsonschema is not installed.
        """
        self._schema = schema
        self._texts = texts
        self._seen: dict[str, dict[Any, int]] = {
            name: {} for name, column in schema.columns.items() if column.unique
        }
        self._deeper = _deeper(schema.json_schema) if schema.json_schema else None

    def check(self, row: Mapping[str, Json], line: int) -> tuple[dict[str, Json], list[str]]:
        """Return the row with its cells read, and all that is wrong with it: column, found, expected."""
        read, faults = dict(row), []
        for name, column in self._schema.columns.items():
            if self._texts and name in read:
                read[name] = _read(str(read[name]), column)
            faults += [f"column {name!r}: {fault}" for fault in self._faults(name, column, read, line)]
        if self._schema.only:
            strange = [name for name in read if name not in self._schema.columns]
            expected = ", ".join(self._schema.columns)
            faults += [f"column {name!r}: is not promised, expected only {expected}" for name in strange]
        if self._deeper is not None:
            faults += self._deeper(read)
        return read, faults

    def _faults(self, name: str, column: ColumnSettings, row: Mapping[str, Json], line: int) -> list[str]:
        value = row.get(name)
        if value is None:
            found = "null" if name in row else "no such column"
            return [f"found {found}, expected {_article(column.type)}"] if column.required else []
        if not _IS[column.type](value):
            return [f"found {shown(value)}, expected {_article(column.type)}"]
        faults = _beyond(value, column)
        if name in self._seen:
            first = self._seen[name].setdefault(repr(value), line)
            if first != line:
                faults.append(f"found {shown(value)} a second time (line {first}), expected every value once")
        return faults


def _beyond(value: Any, column: ColumnSettings) -> list[str]:
    """Say what bounds a value of the right type breaks."""
    faults = []
    # 1 == True for Python; a label of 1 is none of the values [true, false].
    if column.values and not any(value == one and type(value) is type(one) for one in _typed(column)):
        expected = ", ".join(shown(one) for one in column.values[:10])
        more = ", ..." if len(column.values) > 10 else ""
        faults.append(f"found {shown(value)}, expected one of {expected}{more}")
    if column.min is not None and value < column.min:
        faults.append(f"found {shown(value)}, expected at least {column.min:g}")
    if column.max is not None and value > column.max:
        faults.append(f"found {shown(value)}, expected at most {column.max:g}")
    if isinstance(value, str | list | dict):
        size, unit = len(value), "characters" if isinstance(value, str) else "items"
        if column.min_length is not None and size < column.min_length:
            faults.append(f"found {size} {unit}, expected at least {column.min_length}")
        if column.max_length is not None and size > column.max_length:
            faults.append(f"found {size} {unit}, expected at most {column.max_length}")
    if column.pattern is not None and isinstance(value, str) and not re.fullmatch(column.pattern, value):
        faults.append(f"found {shown(value)}, expected what matches {column.pattern}")
    return faults


def _typed(column: ColumnSettings) -> list[Any]:
    if column.type == "number":
        return [cast(one) for one in column.values for cast in (int, float) if cast(one) == one]
    return list(column.values)


_IS: Mapping[Kind, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "mapping": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}


def _article(type: Kind) -> str:
    return {"any": "a value", "integer": "an integer"}.get(type, f"a {type}")


def _read(cell: str, column: ColumnSettings) -> Json:
    """Read a CSV cell as its column's type; what cannot be read stays text, and is refused as such."""
    if column.type in ("text", "any"):
        return None if cell == "" and not column.required else cell
    if cell == "":
        return None
    if column.type == "boolean":
        return {"true": True, "false": False}.get(cell.strip().lower(), cell)
    try:
        if column.type == "integer":
            return int(cell)
        if column.type == "number":
            number = float(cell)
            return number if number - number == 0 else cell  # neither nan nor inf
        import json

        value: Json = json.loads(cell)
    except ValueError:
        return cell
    return value


def shown(value: object) -> str:
    """Write a value so that it can be recognised, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _deeper(schema: dict[str, Any]) -> Callable[[Any], list[str]]:
    try:
        validator = Validator(schema)
    except ValueError as error:
        raise DataError(f"json_schema: {error}") from None

    def faults(row: Any) -> list[str]:
        try:
            found = sorted(validator.faults(row), key=lambda e: list(map(str, e.absolute_path)))
        except ValueError as error:
            raise DataError(f"json_schema: {error}") from None
        return [
            f"column {'.'.join(map(str, error.absolute_path)) or '(the row)'!r}: {_cut(error.message)}"
            for error in found
        ]

    return faults


def _cut(message: str) -> str:
    return message if len(message) <= 160 else f"{message[:160]}..."


def infer(path: Path, rows: int = 1000) -> SchemaSettings:
    """Read a schema off a file's first rows: types, and whether a column ever lacks a value."""
    from itertools import islice

    from trilith_evals.table import records

    seen: dict[str, list[Any]] = {}
    count = 0
    for record in islice(records(path), rows):
        if record.problem:
            raise DataError(f"{path}:{record.line}: {record.problem}")
        count += 1
        for name, value in record.row.items():
            seen.setdefault(name, []).append(value)
    columns = {}
    for name, values in seen.items():
        known = [value for value in values if value is not None]
        kinds: tuple[Kind, ...] = ("text", "boolean", "integer", "number", "list", "mapping")
        found = next((kind for kind in kinds if known and all(map(_IS[kind], known))), "any")
        columns[name] = ColumnSettings(type=found, required=len(known) == count)
    return SchemaSettings(columns=columns)
