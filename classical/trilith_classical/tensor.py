"""Tensors of the Open Inference Protocol in JSON, and their way to what a model reads with no silent loss.

Messages name tensors and row numbers, and never repeat a value: they are answers that a gateway may log.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np

from trilith.errors import BadRequestError
from trilith_classical.manifest import InputColumn

Array: TypeAlias = np.ndarray[Any, Any]

_WHOLE = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_REAL = {"FP16": 65504.0, "FP32": float(np.finfo(np.float32).max), "FP64": math.inf}
DATATYPES = ("BOOL", *_WHOLE, *_REAL, "BYTES")
"""Every datatype of the protocol that JSON can carry."""


def decode(
    inputs: object, columns: Sequence[InputColumn], *, matrix: bool = False, frame: bool = False
) -> dict[str, Array]:
    """Turn a request's `inputs` into one `(rows, 1)` array for each column.

    Args:
        inputs: One tensor per column of shape `[rows]` or `[rows, 1]`; or, where the request says
            `content_type: np`, a single tensor `[rows, columns]` with the columns in the model's order.
        columns: What the model reads.
        matrix: Whether the request as a whole says `content_type: np`.
        frame: Whether it says `pd`: the tensors are a table's columns, of which some may be spare.

    Raises:
        BadRequestError: the tensors are malformed, or do not fit the model without loss.
    """
    if not isinstance(inputs, list) or not inputs:
        refuse("`inputs` is missing or empty, expected a list with one tensor for each column")
    for at, tensor in enumerate(inputs):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            refuse(f"`inputs[{at}]` is not an object with a `name`")
    if len(inputs) == 1 and len(columns) > 1 and (matrix or _content_type(inputs[0]) == "np"):
        return _matrix(inputs[0], columns)
    if frame:
        inputs = _read_ones(inputs, columns)
    named = _by_name(inputs, columns)
    rows = {name: _shape(tensor)[0] for name, tensor in named.items()}
    if len(set(rows.values())) > 1:
        first = columns[0].name
        other = next(name for name, count in rows.items() if count != rows[first])
        refuse(f"inputs differ in length: {first!r} has {rows[first]} rows, {other!r} has {rows[other]}")
    return {column.name: _column(named[column.name], column) for column in columns}


def encode(name: str, datatype: str, values: Array) -> dict[str, Any]:
    """Return an output tensor; `data` is flat, row by row."""
    shape = list(values.shape)
    return {"name": name, "datatype": datatype, "shape": shape, "data": values.reshape(-1).tolist()}


def refuse(message: str) -> NoReturn:
    """Raise the error that answers a malformed request."""
    raise BadRequestError(message, status_code=400, type="invalid_request_error")


def _read_ones(inputs: list[dict[str, Any]], columns: Sequence[InputColumn]) -> list[dict[str, Any]]:
    """Return the columns of a table that the model reads; all have one length, by which rows are counted."""
    if len({_shape(tensor)[0] for tensor in inputs}) > 1:
        refuse("the columns of the table are not of equal length")
    names = {column.name for column in columns}
    return [tensor for tensor in inputs if tensor["name"] in names] or inputs


def _by_name(inputs: list[dict[str, Any]], columns: Sequence[InputColumn]) -> dict[str, dict[str, Any]]:
    named = {tensor["name"]: tensor for tensor in inputs}
    expected = [column.name for column in columns]
    listed = ", ".join(expected)
    if len(named) < len(inputs):
        names = [tensor["name"] for tensor in inputs]
        refuse(f"the input {next(n for n in names if names.count(n) > 1)!r} is given more than once")
    if missing := [name for name in expected if name not in named]:
        refuse(f"missing inputs: {', '.join(missing)}; the model reads: {listed}")
    if unknown := [name for name in named if name not in expected]:
        refuse(f"unknown inputs: {', '.join(map(repr, unknown))}; the model reads: {listed}")
    return named


def _shape(tensor: dict[str, Any], columns: int = 1) -> list[int]:
    shape = tensor.get("shape")
    sizes = shape if isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape) else []
    if sizes[1:] != [columns] and (columns > 1 or len(sizes) != 1):
        expected = "[rows] or [rows, 1]" if columns == 1 else f"[rows, {columns}]"
        refuse(f"input {tensor['name']!r}: `shape` is {_shown(shape)}, expected {expected}")
    if not sizes[0]:
        refuse(f"input {tensor['name']!r} holds no rows")
    return sizes


def _values(tensor: dict[str, Any], columns: int = 1) -> list[Any]:
    """Return a tensor's data, flat, after it was held against its shape."""
    name, data = tensor["name"], tensor.get("data")
    if not isinstance(data, list):
        refuse(f"input {name!r}: `data` is missing or not a list")
    shape = _shape(tensor, columns)
    if len(shape) == 2 and data and isinstance(data[0], list):
        if len(data) != shape[0] or any(type(row) is not list or len(row) != shape[1] for row in data):
            refuse(f"input {name!r}: `data` is nested, and not as {shape[0]} rows of {shape[1]}")
        data = list(itertools.chain.from_iterable(data))
    if len(data) != math.prod(shape):
        refuse(
            f"input {name!r}: `shape` {shape} asks for {math.prod(shape)} values, `data` holds {len(data)}"
        )
    return data


def _matrix(tensor: dict[str, Any], columns: Sequence[InputColumn]) -> dict[str, Array]:
    values, width = _values(tensor, len(columns)), len(columns)
    rows = len(values) // width
    return {
        column.name: _column(
            {**tensor, "name": column.name, "shape": [rows], "data": values[at::width]}, column
        )
        for at, column in enumerate(columns)
    }


def _column(tensor: dict[str, Any], column: InputColumn) -> Array:
    datatype = tensor.get("datatype")
    if datatype not in DATATYPES:
        refuse(
            f"input {column.name!r}: `datatype` is {_shown(datatype)}, expected one of {', '.join(DATATYPES)}"
        )
    values = _values(tensor)
    if column.datatype == "BYTES" and values[0] is None:
        refuse(_at(column, 0, "is missing (null), which the model's contract forbids"))
    if (datatype == "BYTES") != (column.datatype == "BYTES"):
        refuse(f"input {column.name!r} is {datatype}, the model reads {column.datatype}")
    if datatype == "BYTES":
        array = _texts(tensor, values, column)
    elif column.datatype == "FP32":
        array = _reals(values, datatype, column)
    else:
        array = _wholes(values, datatype, column)
    if column.closed:
        allowed = set(column.categories)
        for row, value in enumerate(array.tolist()):
            if value not in allowed:
                refuse(_at(column, row, f"is none of {', '.join(map(repr, column.categories))}"))
    return array.reshape(-1, 1)


def _texts(tensor: dict[str, Any], values: list[Any], column: InputColumn) -> Array:
    if _content_type(tensor) == "base64":
        refuse(f"input {column.name!r}: the content_type base64 is not read here; send the text as it is")
    for row, value in enumerate(values):
        if type(value) is not str:
            missing = "is missing (null), which the model's contract forbids"
            refuse(_at(column, row, missing if value is None else "is not a text"))
    return np.array(values, dtype=np.object_)


def _reals(values: list[Any], datatype: str, column: InputColumn) -> Array:
    _check_kinds(values, datatype, column)
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        refuse(f"input {column.name!r} holds a number that is too large for {datatype}")
    absent = np.isnan(array)
    if not column.nullable and absent.any():
        refuse(
            _at(column, int(absent.argmax()), "is missing (null or NaN), which the model's contract forbids")
        )
    present = np.where(absent, 0.0, array)
    limit = min(_REAL.get(datatype, math.inf), _REAL["FP32"])
    if (over := np.abs(present) > limit).any():
        declared = datatype if _REAL.get(datatype, math.inf) <= limit else column.datatype
        refuse(_at(column, int(over.argmax()), f"is infinite or too large for {declared}"))
    if datatype in _WHOLE:
        low, high = _WHOLE[datatype]
        if (broken := present != np.trunc(present)).any():
            refuse(_at(column, int(broken.argmax()), f"is not a whole number, as {datatype} says"))
        if (beyond := (present < low) | (present > high)).any():
            refuse(_at(column, int(beyond.argmax()), f"is out of the range of {datatype}"))
    return array.astype(np.float32)


def _wholes(values: list[Any], datatype: str, column: InputColumn) -> Array:
    _check_kinds(values, datatype, column)
    low, high = _WHOLE["INT64"] if column.datatype == "INT64" else (0, 1)
    least, most = _WHOLE.get(datatype, (-math.inf, math.inf))
    if datatype in _REAL:
        least, most = -_REAL[datatype], _REAL[datatype]
    whole = []
    for row, value in enumerate(values):
        if type(value) is float:
            if not value.is_integer():  # NaN and the infinities as well
                what = "is missing (NaN)" if math.isnan(value) else "is not a whole number"
                refuse(_at(column, row, f"{what}; the model reads {column.datatype}"))
            value = int(value)
        elif value is None:
            refuse(_at(column, row, f"is missing (null); the model reads {column.datatype}"))
        if not least <= value <= most:
            refuse(_at(column, row, f"is out of the range of {datatype}"))
        if not low <= value <= high:
            refuse(_at(column, row, f"is out of the range of {column.datatype}, which the model reads"))
        whole.append(value)
    return np.array(whole, dtype=np.int64)


def _check_kinds(values: list[Any], datatype: str, column: InputColumn) -> None:
    """Refuse JSON values that are not of the declared datatype; null counts as a missing number."""
    fitting = {bool, type(None)} if datatype == "BOOL" else {int, float, type(None)}
    if not fitting.issuperset(map(type, values)):
        row = next(row for row, value in enumerate(values) if type(value) not in fitting)
        refuse(
            _at(column, row, f"is not a {'boolean' if datatype == 'BOOL' else 'number'}, as {datatype} says")
        )


def _content_type(tensor: Mapping[str, Any]) -> object:
    parameters = tensor.get("parameters")
    return parameters.get("content_type") if isinstance(parameters, Mapping) else None


def _at(column: InputColumn, row: int, what: str) -> str:
    return f"input {column.name!r}: row {row} (from 0) {what}"


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
