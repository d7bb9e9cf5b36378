"""A table in CSV, as the Open Inference Protocol's tensors: what a cell is, the model's own columns say."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trilith_gateway.inference import frame
from trilith_gateway.request import refuse

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_TRUTHS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_MISSING = frozenset(
    {"", "#n/a", "#n/a n/a", "#na", "<na>", "n/a", "na", "nan", "-nan", "none", "null", "1.#qnan", "-1.#qnan"}
)
"""How pandas writes and reads a missing number, in small letters. Of texts only the empty one is missing:
`NA` is a country."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column that the model reads."""

    datatype: str
    """As the protocol names it."""
    flat: bool = True
    """Its shape is `[rows]`, and not `[rows, 1]`."""


def described(metadata: Mapping[str, Any]) -> dict[str, Column]:
    """Return the columns that a model's metadata describes; what is no column is left out."""
    found = {}
    inputs = metadata.get("inputs")
    for one in inputs if isinstance(inputs, list) else ():
        if isinstance(one, dict) and isinstance(shape := one.get("shape"), list) and len(shape) <= 2:
            found[str(one.get("name"))] = Column(str(one.get("datatype")), len(shape) < 2)
    parameters = metadata.get("parameters")
    entity = parameters.get("entity") if isinstance(parameters, dict) else None
    if found and isinstance(entity, str):
        found[entity] = Column("BYTES")
    return found


def request(raw: bytes, columns: Mapping[str, Column]) -> Body:
    """Return an inference request for the rows of a table.

    Args:
        raw: The table, its columns' names in the first line.
        columns: What the model reads, by name; others are left out. Empty: all are sent, as numbers where
            every cell is one.

    Raises:
        BadRequestError: it is not a table, or holds what a column cannot.
    """
    names, rows = _read(raw)
    tensors = []
    for at, name in enumerate(names):
        if columns and name not in columns:
            continue
        cells = [row[at] if at < len(row) else "" for row in rows]
        column = columns[name] if columns else Column(_guessed(cells))
        shape = [len(cells)] if column.flat else [len(cells), 1]
        values = _values(name, column.datatype, cells)
        tensors.append({"name": name, "shape": shape, "datatype": column.datatype, "data": values})
    if not tensors:
        refuse(f"The table has none of the columns that the model reads: {', '.join(columns)}.", None)
    return frame.columns(tensors)


def _read(raw: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = raw.decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except UnicodeDecodeError:
        refuse("The body is not UTF-8.", None)
    except csv.Error:
        refuse("The body is not CSV: a quoted field does not end, or one is too long.", None)
    if len(lines) < 2:
        refuse("The body holds no rows; expected the columns' names in its first line, and then rows.", None)
    names, rows = lines[0], lines[1:]
    if len(set(names)) < len(names):
        refuse("The body's first line names a column twice.", None)
    for at, row in enumerate(rows):
        if len(row) > len(names):
            refuse(f"Row {at} (from 0) has {len(row)} cells, expected {len(names)} as the first line.", None)
    return names, rows


def _guessed(cells: Sequence[str]) -> str:
    given = [cell for cell in map(str.strip, cells) if cell.lower() not in _MISSING]
    return "FP64" if all(map(_NUMBER.fullmatch, given)) else "BYTES"


def _values(name: str, datatype: str, cells: Sequence[str]) -> list[Any]:
    if datatype == "BYTES":
        return [cell or None for cell in cells]
    values: list[Any] = []
    for row, cell in enumerate(map(str.strip, cells)):
        value: object
        if cell.lower() in _MISSING:
            value = None
        elif datatype == "BOOL":
            value = _TRUTHS.get(cell.lower())
            if value is None:
                refuse(f"Column {name!r}: row {row} (from 0) is neither true nor false.", None)
        elif _WHOLE.fullmatch(cell):
            value = int(cell)
        else:
            value = float(cell) if _NUMBER.fullmatch(cell) else math.inf
            if math.isinf(value):
                refuse(f"Column {name!r}: row {row} (from 0) is not a number.", None)
        values.append(value)
    return values
