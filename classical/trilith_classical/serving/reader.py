"""From a request's tensors to what a model reads: a quick way for what nearly all requests look like.

The quick way decides in bulk whether a request is plain and complete; whatever it does not recognise takes
the careful way (`trilith_classical.tensor`), which says column and row of what is wrong. Both read the same
values.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trilith_classical import tensor as careful
from trilith_classical.manifest import InputColumn
from trilith_classical.serving import codec
from trilith_classical.serving.codec import Array
from trilith_classical.serving.wire import refuse

_LARGEST = float(np.finfo(np.float32).max)
_WHOLES: Mapping[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_NUMBERS = frozenset({int, float})
_INTEGERS = frozenset({int})
_BOOLEANS = frozenset({bool})
_TEXTS = frozenset({str})


class _Plan:
    """What is known of one column beforehand."""

    __slots__ = ("at", "categories", "group")

    def __init__(self, column: InputColumn, at: int) -> None:
        self.group = column.datatype
        self.at = at
        """Its place among the columns of its group (0: FP32, 1: whole numbers, 2: texts)."""
        self.categories = frozenset(column.categories) if column.closed else None


class Reader:
    """Reads requests for one model.

    Args:
        columns: What the model reads, in its order.
    """

    def __init__(self, columns: Sequence[InputColumn]) -> None:
        self.columns = tuple(columns)
        self._plans: dict[str, _Plan] = {}
        names: tuple[list[str], list[str], list[str]] = ([], [], [])
        for column in columns:
            group = 0 if column.datatype == "FP32" else 2 if column.datatype == "BYTES" else 1
            self._plans[column.name] = _Plan(column, len(names[group]))
            names[group].append(column.name)
        self._reals, self._wholes, self._texts = names

    def read(self, request: Mapping[str, Any]) -> dict[str, Array]:
        """Return one `(rows, 1)` array per column.

        Raises:
            BadRequestError: the tensors are malformed, or do not fit the model without loss.
        """
        inputs = request.get("inputs")
        quick = self._quick(inputs) if type(inputs) is list else None
        if quick is not None:
            return quick
        parameters = request.get("parameters")
        written = parameters.get("content_type") if isinstance(parameters, Mapping) else None
        return self._careful(inputs, matrix=written == "np", frame=written == "pd")

    def _quick(self, inputs: list[Any]) -> dict[str, Array] | None:
        """Read JSON tensors of plain numbers and texts; None: this takes a closer look."""
        if len(inputs) != len(self._plans):
            return None
        groups: tuple[list[Any], list[Any], list[Any]] = (
            [None] * len(self._reals),
            [None] * len(self._wholes),
            [None] * len(self._texts),
        )
        rows = -1
        try:
            for tensor in inputs:
                plan, shape, data = self._plans[tensor["name"]], tensor["shape"], tensor["data"]
                if rows < 0:
                    rows = shape[0]
                    if rows < 1:
                        return None
                if (shape[0] != rows or type(shape[0]) is not int) or shape[1:] not in _ONE_COLUMN:
                    return None
                if type(data) is not list or len(data) != rows:
                    return None
                group = _group(plan, tensor["datatype"], data)
                if group is None or (plan.categories is not None and not plan.categories.issuperset(data)):
                    return None
                groups[group][plan.at] = data
        except (KeyError, TypeError, IndexError):
            return None
        if any(None in group for group in groups):
            return None
        return self._arrays(rows, *groups)

    def _arrays(
        self, rows: int, reals: list[Any], wholes: list[Any], texts: list[Any]
    ) -> dict[str, Array] | None:
        found: dict[str, Array] = {}
        try:
            if reals:
                wide = np.array(reals, dtype=np.float64)
                if not np.abs(wide).max() <= _LARGEST:  # also when one of them is NaN
                    return None
                found.update(zip(self._reals, wide.astype(np.float32).reshape(-1, rows, 1), strict=True))
            if wholes:
                exact = np.array(wholes, dtype=np.int64)
                found.update(zip(self._wholes, exact.reshape(-1, rows, 1), strict=True))
        except OverflowError:
            return None
        for name, data in zip(self._texts, texts, strict=True):
            found[name] = np.array(data, dtype=object).reshape(rows, 1)
        return found

    def _careful(self, inputs: object, *, matrix: bool, frame: bool) -> dict[str, Array]:
        """Read everything that the protocol allows, or say what is wrong."""
        if isinstance(inputs, list) and all(isinstance(tensor, dict) for tensor in inputs):
            arrays = {
                str(tensor.get("name")): codec.decode(tensor)
                for tensor in inputs
                if isinstance(tensor.get("data"), memoryview)
            }
            if len(arrays) == len(inputs) and (found := self._from_arrays(arrays)) is not None:
                return found
            inputs = [_plain(tensor, arrays) for tensor in inputs]
        return careful.decode(inputs, self.columns, matrix=matrix, frame=frame)

    def _from_arrays(self, arrays: Mapping[str, Array]) -> dict[str, Array] | None:
        """Read tensors that came as bytes without a look at single values; None: this takes a closer look."""
        if arrays.keys() != self._plans.keys():
            return None
        found: dict[str, Array] = {}
        rows = next(iter(arrays.values())).shape[:1]
        for name, values in arrays.items():
            if not rows or values.shape not in (rows, (*rows, 1)) or not values.size:
                return None
            fitted = _fitted(values, self._plans[name])
            if fitted is None:
                return None
            found[name] = fitted
        return found


_ONE_COLUMN: tuple[list[int], list[int]] = ([], [1])


def _group(plan: _Plan, datatype: str, data: list[Any]) -> int | None:
    """Return the group of a column whose values are plainly what their datatype says; None: not so plain."""
    kinds = {*map(type, data)}
    if plan.group == "FP32":
        if datatype in ("FP64", "FP32"):
            # Between FP32's and FP64's largest number the careful way decides.
            return 0 if kinds <= _NUMBERS else None
        return 0 if datatype in _WHOLES and kinds <= _INTEGERS and _within(data, datatype) else None
    if plan.group == "INT64":
        return 1 if datatype in _WHOLES and kinds <= _INTEGERS and _within(data, datatype) else None
    if plan.group == "BOOL":
        return 1 if datatype == "BOOL" and kinds <= _BOOLEANS else None
    return 2 if datatype == "BYTES" and kinds <= _TEXTS else None


def _within(data: list[int], datatype: str) -> bool:
    if datatype == "INT64":
        return True  # beyond it, numpy refuses
    least, most = _WHOLES[datatype]
    return least <= min(data) and max(data) <= most


def _fitted(values: Array, plan: _Plan) -> Array | None:
    """Return an array in the column's own type if that loses nothing but digits beyond 32-bit floats."""
    kind = values.dtype.kind
    if plan.categories is not None or kind == "O":
        return None
    if plan.group == "FP32" and kind in "fiu":
        if not np.abs(values.astype(np.float64)).max() <= _LARGEST:
            return None
        return values.astype(np.float32).reshape(-1, 1)
    if plan.group == "INT64" and (kind == "i" or (kind == "u" and values.dtype.itemsize < 8)):
        return values.astype(np.int64).reshape(-1, 1)
    if plan.group == "BOOL" and kind == "b":
        return values.astype(np.int64).reshape(-1, 1)
    return None


def _plain(tensor: dict[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return a tensor with its data as a list of values, whatever it came as."""
    data = tensor.get("data")
    if isinstance(data, memoryview):
        return {**tensor, "data": codec.to_values(arrays[str(tensor.get("name"))])}
    if tensor.get("datatype") != "BYTES" or not isinstance(data, list):
        return tensor
    parameters = tensor.get("parameters")
    if isinstance(parameters, Mapping) and parameters.get("content_type") == "base64":
        name = str(tensor.get("name"))
        texts = [_text(name, row, value) for row, value in enumerate(data)]
        return {**tensor, "data": texts, "parameters": {**parameters, "content_type": "str"}}
    return tensor


def _text(name: str, row: int, value: object) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, ValueError):
        refuse(f"input {name!r}: row {row} (from 0) is not a text in UTF-8, as base64")
