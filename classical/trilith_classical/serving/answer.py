"""Which outputs a request asks for, and how they are written: as JSON values, as bytes, as base64."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trilith_classical.manifest import OutputColumn
from trilith_classical.serving import codec
from trilith_classical.serving.codec import Array
from trilith_classical.serving.wire import SIZE, refuse


class Wanted:
    """One output that is to be given."""

    __slots__ = ("at", "binary", "column", "encoded")

    def __init__(self, at: int, column: OutputColumn, *, binary: bool = False, encoded: bool = False) -> None:
        self.at = at
        """Its place among the model's outputs."""
        self.column = column
        self.binary = binary
        """As bytes after the JSON."""
        self.encoded = encoded
        """Texts as base64."""


def wanted(request: Mapping[str, Any], columns: Sequence[OutputColumn]) -> list[Wanted]:
    """Return the outputs to give: those asked for, in that order, or all.

    Raises:
        BadRequestError: `id` or `outputs` are not what the protocol says, or an output is unknown.
    """
    if "id" in request and type(request["id"]) is not str:
        refuse("`id` is not a text")
    asked = request.get("outputs")
    binary = _parameters(request).get("binary_data_output") is True
    if asked is None or asked == []:
        return [Wanted(at, column, binary=binary) for at, column in enumerate(columns)]
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        refuse("`outputs` is not a list of objects with a `name`")
    known = {column.name: at for at, column in enumerate(columns)}
    found = []
    for one in asked:
        name = one.get("name")
        if not isinstance(name, str) or name not in known:
            refuse(f"unknown output {str(name)[:60]!r}; the model gives: {', '.join(known)}")
        parameters = _parameters(one)
        if parameters.get("classification"):
            refuse(f"output {name!r}: `classification` is not offered; classes and probabilities are outputs")
        found.append(
            Wanted(
                known[name],
                columns[known[name]],
                binary=parameters.get("binary_data", binary) is True,
                encoded=parameters.get("content_type") == "base64",
            )
        )
    return found


def tensors(asked: Sequence[Wanted], arrays: Sequence[Array]) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the output tensors, and the bytes of those that are given as bytes."""
    outputs: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for one in asked:
        column, array = one.column, arrays[one.at]
        values = array if column.classes else array.reshape(-1)
        if column.datatype == "BOOL":
            values = values.astype(np.bool_)
        tensor: dict[str, Any] = {
            "name": column.name,
            "datatype": column.datatype,
            "shape": list(values.shape),
        }
        if one.encoded and column.datatype == "BYTES":
            texts = [base64.b64encode(str(text).encode()).decode() for text in codec.to_values(values)]
            values = np.array(texts, dtype=object)
            tensor["parameters"] = {"content_type": "base64"}
        if one.binary:
            parts.append(codec.to_bytes(values, column.datatype))
            tensor["parameters"] = {**tensor.get("parameters", {}), SIZE: len(parts[-1])}
        else:
            tensor["data"] = codec.to_values(values)
        outputs.append(tensor)
    return outputs, parts


_NOTHING: Mapping[str, Any] = {}


def _parameters(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    found = holder.get("parameters")
    if found is None:
        return _NOTHING
    if not isinstance(found, dict):
        refuse("`parameters` is not an object")
    return found
