"""Tensors of every datatype: JSON values to arrays and back, bytes to arrays and back, with nothing lost.

An element of a BYTES tensor is a text; content of another kind comes and goes as base64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from trilith_classical.serving import wire
from trilith_classical.serving.wire import refuse

Array: TypeAlias = np.ndarray[Any, Any]

DTYPES: Mapping[str, Any] = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BYTES": np.dtype(object),
}
"""Every datatype of the protocol."""


def decode(tensor: Mapping[str, Any]) -> Array:
    """Return a tensor's values in its own datatype and shape.

    `data` is a flat or nested list, or, for a tensor that came as bytes, a memoryview. null in a tensor of
    real numbers is NaN.

    Raises:
        BadRequestError: the tensor contradicts itself; the message names it and never repeats a value.
    """
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str):
        refuse("an input has no `name`")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        refuse(f"input {name!r}: `datatype` is {_shown(datatype)}, expected one of {', '.join(DTYPES)}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        refuse(f"input {name!r}: `shape` is {_shown(shape)}, expected a list of sizes")
    count = wire.count(shape)
    if count is None:
        refuse(
            f"input {name!r}: `shape` comes to more than {wire.MOST_VALUES:,} values"
            f" or {wire.MOST_DIMENSIONS} dimensions"
        )
    data = tensor.get("data")
    if isinstance(data, memoryview):
        return from_bytes(name, datatype, shape, data)
    if not isinstance(data, list):
        refuse(f"input {name!r}: `data` is missing or not a list")
    values = flat(name, data, shape)
    if len(values) != count:
        refuse(f"input {name!r}: `shape` {shape} asks for {count} values, `data` holds {len(values)}")
    return _from_values(name, datatype, values).reshape(shape)


def from_bytes(name: str, datatype: str, shape: list[int], data: memoryview) -> Array:
    """Return the values of a tensor that came as little-endian bytes, row by row."""
    dtype = DTYPES[datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        refuse(f"input {name!r}: `shape` {shape} asks for {expected} bytes of {datatype}, got {len(data)}")
    values = np.frombuffer(data, dtype=np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        if (values > 1).any():
            refuse(f"input {name!r}: a byte of a BOOL tensor is neither 0 nor 1")
        values = values.astype(np.bool_)
    return values.reshape(shape)


def to_bytes(values: Array, datatype: str) -> bytes:
    """Return a tensor's values as bytes of its datatype."""
    if datatype == "BYTES":
        return wire.pack(str(value) for value in values.reshape(-1).tolist())
    return np.ascontiguousarray(values, dtype=DTYPES[datatype]).tobytes()


def to_values(values: Array) -> list[Any]:
    """Return a tensor's values as JSON has them: flat, row by row; a NaN becomes null where it is written."""
    listed: list[Any] = values.reshape(-1).tolist()
    return listed


def flat(name: str, data: list[Any], shape: list[int]) -> list[Any]:
    """Return the values of `data`, which is flat or nested just as `shape` says."""
    for depth, size in enumerate(shape[1:], start=1):
        if not data or type(data[0]) is not list:
            break
        if any(type(part) is not list or len(part) != size for part in data):
            refuse(f"input {name!r}: `data` is nested, and not as `shape` {shape} says at depth {depth}")
        data = list(itertools.chain.from_iterable(data))
    return data


def _from_values(name: str, datatype: str, values: list[Any]) -> Array:
    kinds = set(map(type, values))
    if datatype == "BYTES":
        if not kinds <= {str}:
            refuse(f"input {name!r}: {_where(values, {str})} is not a text")
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array
    if datatype == "BOOL":
        if not kinds <= {bool}:
            refuse(f"input {name!r}: {_where(values, {bool})} is not a boolean, as BOOL says")
        return np.array(values, dtype=np.bool_)
    if datatype.startswith("FP"):
        return _reals(name, datatype, values, kinds)
    if not kinds <= {int}:
        values = [_whole(name, datatype, at, value) for at, value in enumerate(values)]
    bounds = np.iinfo(DTYPES[datatype])
    if values and not (bounds.min <= min(values) and max(values) <= bounds.max):
        refuse(f"input {name!r}: a value is out of the range of {datatype}")
    return np.array(values, dtype=DTYPES[datatype])


def _reals(name: str, datatype: str, values: list[Any], kinds: set[type]) -> Array:
    if not kinds <= {int, float, type(None)}:
        refuse(f"input {name!r}: {_where(values, {int, float, type(None)})} is not a number")
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        refuse(f"input {name!r}: a value is too large for {datatype}")
    with np.errstate(over="ignore"):
        narrow = array.astype(DTYPES[datatype])
    if (np.isinf(narrow) & np.isfinite(array)).any():
        refuse(f"input {name!r}: a value is too large for {datatype}")
    return narrow


def _whole(name: str, datatype: str, at: int, value: object) -> int:
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    refuse(f"input {name!r}: value {at} (from 0) is not a whole number, as {datatype} says")


def _where(values: list[Any], fitting: set[type]) -> str:
    return f"value {next(at for at, value in enumerate(values) if type(value) not in fitting)} (from 0)"


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
