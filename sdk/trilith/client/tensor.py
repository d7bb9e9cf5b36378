"""Rows of features as tensors of the Open Inference Protocol, and its answers as predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from trilith.errors import DataError
from trilith.types import Prediction

_INT64 = range(-(2**63), 2**63)


@runtime_checkable
class Frame(Protocol):
    """A table of pandas or polars, as far as it is needed here."""

    @property
    def columns(self) -> Iterable[Any]:
        """Names."""
        ...

    def __getitem__(self, name: Any, /) -> Any:
        """Return one column, which has `to_list()`."""
        ...


Rows: TypeAlias = Sequence[Mapping[str, Any]] | Mapping[str, Iterable[Any]] | Frame
"""A list of rows (column to value), a mapping of columns, or a DataFrame of pandas or polars."""


def tensors(rows: Rows) -> list[dict[str, Any]]:
    """Return one input tensor of shape `[n, 1]` per column.

    Python's and numpy's numbers, booleans and texts are told apart by value: BOOL, INT64, FP64 (also for a
    column that mixes integers with fractions) and BYTES. A missing value (None, NaN) is sent as null.

    Raises:
        DataError: no rows, columns of unlike length, or a value of another type.
    """
    columns = {
        str(name): [_plain(name, value) for value in column] for name, column in _columns(rows).items()
    }
    lengths = {len(column) for column in columns.values()}
    if not columns or lengths == {0}:
        raise DataError("rows is empty, expected at least one row with at least one column")
    if len(lengths) > 1:
        found = ", ".join(f"{name!r}: {len(column)}" for name, column in columns.items())
        raise DataError(f"columns have unlike lengths ({found}), expected one value per row in each")
    return [
        {"name": name, "shape": [len(column), 1], "datatype": _datatype(name, column), "data": column}
        for name, column in columns.items()
    ]


def prediction(value: Mapping[str, Any], model: str, request_id: str) -> Prediction:
    """Read an inference answer: a plain list per output, with a list per row where it has several columns."""
    outputs = {str(output["name"]): _rows(output) for output in value["outputs"]}
    return Prediction(
        outputs=outputs,
        model=str(value.get("model_name") or model),
        version=str(value.get("model_version") or ""),
        request_id=request_id,
    )


def _columns(rows: Rows) -> dict[str, list[Any]]:
    if isinstance(rows, Mapping):
        return {name: _listed(name, column) for name, column in rows.items()}
    if isinstance(rows, Frame):
        return {name: rows[name].to_list() for name in rows.columns}
    if not isinstance(rows, Sequence) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"rows is a {type(rows).__name__}, expected a list of dicts, a dict of columns, or a DataFrame"
        )
    names = list(rows[0]) if rows else []
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            odd = ", ".join(sorted(map(repr, row.keys() ^ rows[0].keys())))
            raise DataError(f"row {number} has other columns than row 0 ({odd}), expected the same in each")
    return {name: [row[name] for row in rows] for name in names}


def _listed(name: str, column: Any) -> list[Any]:
    if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
        raise DataError(f"column {name!r} is a {type(column).__name__}, expected a list with a value per row")
    return list(column)


def _plain(name: str, value: Any) -> Any:
    """Return a value as one of Python's own types, and every kind of missing value as None."""
    if getattr(value, "shape", None) == ():
        value = value.item()  # a scalar of numpy
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"column {name!r} holds bytes that are not UTF-8") from None
    return None if type(value).__name__ in ("NAType", "NaTType") else value  # pandas'


def _datatype(name: str, column: list[Any]) -> str:
    kinds = {type(value) for value in column if value is not None}
    missing = any(value is None for value in column)
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int} and not missing:
        if not all(value in _INT64 for value in column):
            raise DataError(f"column {name!r} holds an integer beyond 64 bits")
        return "INT64"
    if kinds <= {int, float}:
        if any(value is not None and math.isinf(value) for value in column):
            raise DataError(f"column {name!r} holds an infinity, which JSON cannot carry")
        return "FP64"
    found = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise DataError(f"column {name!r} holds {found}, expected only numbers, only booleans, or only texts")


def _rows(output: Mapping[str, Any]) -> list[Any]:
    data = _flat(output["data"])
    shape = [int(size) for size in output.get("shape") or [len(data)]]
    rows, width = shape[0], math.prod(shape[1:])
    if rows * width != len(data):
        raise ValueError(f"output {output['name']!r} has {len(data)} values, but the shape {shape}")
    if width == 1:
        return data
    return [data[at : at + width] for at in range(0, len(data), width)]


def _flat(data: Any) -> list[Any]:
    """Return row-major values of a tensor that is written flat or nested: the protocol allows both."""
    flat: list[Any] = []
    for value in data:
        flat.extend(_flat(value) if isinstance(value, list) else [value])
    return flat
