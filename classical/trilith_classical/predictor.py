"""Runs one registered version: loads ONNX by digest, describes it, and answers inference requests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trilith.errors import IntegrityError
from trilith.types import RegisteredModel
from trilith_classical.conversion import Array, open_session
from trilith_classical.manifest import ONNX, InputColumn, Manifest, read_manifest
from trilith_classical.tensor import decode, encode, refuse

PLATFORM = "onnxruntime_onnx"
"""The protocol's name for models in this format, as Triton spells it."""


class OnnxPredictor:
    """A model in memory, warmed up.

    Args:
        model: What the registry resolved. The bytes that are hashed are the bytes that are loaded.

    Raises:
        IntegrityError: `model.onnx` is not the file with the recorded digest, or its manifest is another
            model's.
    """

    def __init__(self, model: RegisteredModel) -> None:
        folder = Path(model.path)
        try:
            raw = (folder / ONNX).read_bytes()
        except OSError as error:
            raise IntegrityError(
                f"{folder / ONNX}: cannot be read: {error.strerror}; {_cure(model)}"
            ) from error
        found = hashlib.sha256(raw).hexdigest()
        if found != model.digest:
            raise IntegrityError(
                f"{folder / ONNX}: expected sha256 {model.digest[:12]}..., found {found[:12]}...; "
                f"{_cure(model)}"
            )
        self.model = model
        self.manifest: Manifest = read_manifest(folder)
        if self.manifest.digests.get(ONNX) != model.digest:
            raise IntegrityError(f"{folder}: the manifest describes another model.onnx; {_cure(model)}")
        self._session = open_session(raw)
        self.run({column.name: _blank(column) for column in self.manifest.inputs})

    def run(self, tensors: Mapping[str, Array]) -> list[Array]:
        """Return the graph's outputs for one `(rows, 1)` array per column. Blocking and CPU-bound."""
        given: list[Array] = self._session.run(None, dict(tensors))
        return given

    def infer(self, request: Mapping[str, Any], *, model_name: str | None = None) -> dict[str, Any]:
        """Answer one inference request of the Open Inference Protocol. Blocking and CPU-bound.

        Args:
            request: The decoded body. Parameters other than `content_type` are ignored.
            model_name: The public name to answer under; the registered one when None.

        Raises:
            BadRequestError: the request does not fit the model; the message says where.
        """
        manifest = self.manifest
        parameters = request.get("parameters")
        matrix = isinstance(parameters, Mapping) and parameters.get("content_type") == "np"
        wanted = _wanted(request.get("outputs"), [output.name for output in manifest.outputs])
        arrays = self.run(decode(request.get("inputs"), manifest.inputs, matrix=matrix))
        answer: dict[str, Any] = {
            "model_name": model_name or self.model.name,
            "model_version": self.model.version,
        }
        if "id" in request:
            if not isinstance(request["id"], str):
                refuse("`id` is not a text")
            answer["id"] = request["id"]
        tensors = {}
        for output, array in zip(manifest.outputs, arrays, strict=True):
            values = array if output.classes else array.reshape(-1)
            tensors[output.name] = encode(
                output.name, output.datatype, values.astype(bool) if output.datatype == "BOOL" else values
            )
        answer["outputs"] = [tensors[name] for name in wanted]
        return answer

    def metadata(self, *, model_name: str | None = None) -> dict[str, Any]:
        """Return the protocol's description of the model; a size of -1 is the number of rows."""
        inputs = []
        for column in self.manifest.inputs:
            parameters: dict[str, Any] = {"nullable": column.nullable} if column.nullable else {}
            if column.categorical:
                parameters |= {"categories": list(column.categories), "closed": column.closed}
            inputs.append(_tensor_metadata(column.name, column.datatype, [-1, 1], parameters))
        outputs = []
        for output in self.manifest.outputs:
            shape = [-1, len(output.classes)] if output.classes else [-1]
            parameters = {"classes": list(output.classes)} if output.classes else {}
            outputs.append(_tensor_metadata(output.name, output.datatype, shape, parameters))
        return {
            "name": model_name or self.model.name,
            "versions": [self.model.version],
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }


def _tensor_metadata(
    name: str, datatype: str, shape: list[int], parameters: dict[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return described | ({"parameters": parameters} if parameters else {})


def _wanted(asked: object, known: list[str]) -> list[str]:
    """Return the names of the outputs to give: those asked for, in that order, or all."""
    if asked is None or asked == []:
        return known
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        refuse("`outputs` is not a list of objects with a `name`")
    names = [one.get("name") for one in asked]
    if unknown := [name for name in names if name not in known]:
        refuse(f"unknown output {str(unknown[0])[:60]!r}; the model gives: {', '.join(known)}")
    return names


def _blank(column: InputColumn) -> Array:
    """Return one row that the model can read, to warm it up with."""
    if column.datatype == "BYTES":
        return np.array([[column.categories[0] if column.categories else ""]], dtype=np.object_)
    return np.zeros((1, 1), dtype=np.float32 if column.datatype == "FP32" else np.int64)


def _cure(model: RegisteredModel) -> str:
    return f"train it again with: trilith train {model.name}"
