"""Runs one registered version: loads ONNX by digest, describes it, and answers inference requests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trilith.errors import IntegrityError
from trilith.types import RegisteredModel
from trilith_classical.conversion import Array, open_session
from trilith_classical.manifest import ONNX, InputColumn, Manifest, read_manifest
from trilith_classical.serving import answer as answers
from trilith_classical.serving.reader import Reader

PLATFORM = "onnxruntime_onnx"
"""The protocol's name for models in this format, as Triton spells it."""

_PROBES = 5


class OnnxPredictor:
    """A model in memory, warmed up.

    Args:
        model: What the registry resolved. The bytes that are hashed are the bytes that are loaded.
        threads: How many threads one run may use.

    Raises:
        IntegrityError: `model.onnx` is not the file with the recorded digest, or its manifest is another
            model's.
    """

    def __init__(self, model: RegisteredModel, *, threads: int = 1) -> None:
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
        self._session = open_session(raw, threads=threads)
        self.reader = Reader(self.manifest.inputs)
        self.joins = self._joins()
        """Whether rows that are run together give bit for bit what each gives alone. Trees do; a linear model
        may not, because its sums are taken in another order."""

    def run(self, tensors: Mapping[str, Array]) -> list[Array]:
        """Return the graph's outputs for one `(rows, 1)` array per column. Blocking and CPU-bound."""
        given: list[Array] = self._session.run(None, tensors)
        return given

    def blank(self) -> dict[str, Array]:
        """Return one row that the model can read, to warm it up with."""
        return {column.name: _probe(column, 0) for column in self.manifest.inputs}

    def infer(self, request: Mapping[str, Any], *, model_name: str | None = None) -> dict[str, Any]:
        """Answer one inference request of the Open Inference Protocol in JSON. Blocking and CPU-bound.

        Args:
            request: The decoded body. Parameters other than `content_type` are ignored.
            model_name: The public name to answer under; the registered one when None.

        Raises:
            BadRequestError: the request does not fit the model; the message says where.
        """
        wanted = answers.wanted(request, self.manifest.outputs)
        arrays = self.run(self.reader.read(request))
        return self.answer(request, wanted, arrays, model_name=model_name)[0]

    def answer(
        self,
        request: Mapping[str, Any],
        wanted: Sequence[answers.Wanted],
        arrays: Sequence[Array],
        *,
        model_name: str | None = None,
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Return the answer's JSON object, and the tensors that follow it as bytes."""
        outputs, parts = answers.tensors(wanted, arrays)
        answer: dict[str, Any] = {
            "model_name": model_name or self.model.name,
            "model_version": self.model.version,
        }
        if "id" in request:
            answer["id"] = request["id"]
        answer["outputs"] = outputs
        return answer, parts

    def _joins(self) -> bool:
        """Run a few rows alone and together. This also warms the model up."""
        columns = self.manifest.inputs
        rows = [{column.name: _probe(column, at) for column in columns} for at in range(_PROBES)]
        alone = [self.run(row) for row in rows]
        together = self.run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
        for output, array in enumerate(together):
            if len(array) != _PROBES:
                return False
            if any(not _same(one[output], array[at : at + 1]) for at, one in enumerate(alone)):
                return False
        return True

    def metadata(self, *, model_name: str | None = None, versions: Sequence[str] = ()) -> dict[str, Any]:
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
            "versions": list(versions) or [self.model.version],
            "platform": PLATFORM,
            "inputs": inputs,
            "outputs": outputs,
        }


def _tensor_metadata(
    name: str, datatype: str, shape: list[int], parameters: dict[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    return described | ({"parameters": parameters} if parameters else {})


def _same(one: Array, other: Array) -> bool:
    if one.dtype.kind == "f":
        return one.tobytes() == other.tobytes()
    return bool(np.array_equal(one, other))


def _probe(column: InputColumn, at: int) -> Array:
    """Return a row for this column: all zeros first, then values that spread out."""
    known = column.categories[at % len(column.categories)] if column.categories else None
    if column.datatype == "BYTES":
        return np.array([["" if known is None else known]], dtype=np.object_)
    if column.datatype == "FP32":
        return np.array([[at * 0.7310585 * (-1.7) ** at if at else 0.0]], dtype=np.float32)
    if column.datatype == "BOOL":
        return np.array([[at % 2]], dtype=np.int64)
    return np.array([[at * at * 3 if known is None else known]], dtype=np.int64)


def _cure(model: RegisteredModel) -> str:
    return f"train it again with: trilith train {model.name}"
