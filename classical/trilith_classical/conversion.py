"""From scikit-learn to ONNX: the conversion, a session that runs it, and the proof that both say the same."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from trilith.errors import DataError
from trilith_classical.manifest import InputColumn, OutputColumn, Parity, Task
from trilith_classical.pipeline import Pipeline

Array: TypeAlias = np.ndarray[Any, Any]

# Pinned, so that one version of the code writes one format whatever the newest is.
_OPSET = {"": 21, "ai.onnx.ml": 3}


def convert(pipeline: Pipeline, columns: Sequence[InputColumn], task: Task) -> bytes:
    """Return a fitted pipeline as ONNX, with one `(rows, 1)` input for each column.

    Numbers that are not whole become 32-bit floats: the tree operators of ONNX compute in nothing wider.

    Raises:
        DataError: a column cannot be expressed.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    kinds = {
        "BOOL": Int64TensorType,
        "INT64": Int64TensorType,
        "FP32": FloatTensorType,
        "BYTES": StringTensorType,
    }
    types = [(column.name, kinds[column.datatype]([None, 1])) for column in columns]
    options = None if task == "regression" else {id(pipeline): {"zipmap": False}}
    with warnings.catch_warnings():
        # onnx 1.23 hands booleans to protobuf's integers, which protobuf 6 takes and warns about.
        warnings.filterwarnings("ignore", "Field onnx.AttributeProto.ints", DeprecationWarning)
        model = to_onnx(pipeline, initial_types=types, options=options, target_opset=_OPSET)
    found = {one.name for one in model.graph.input}
    if found != {column.name for column in columns}:
        raise DataError(
            f"ONNX takes the inputs {sorted(found)}, expected one for each column; rename columns"
        )
    return bytes(model.SerializeToString())


def outputs(pipeline: Pipeline, task: Task) -> tuple[OutputColumn, ...]:
    """Describe what the converted pipeline gives, in its order."""
    if task == "regression":
        return (OutputColumn(name="predict", datatype="FP32"),)
    classes = tuple(pipeline.classes_.tolist())
    kind = pipeline.classes_.dtype.kind
    return (
        OutputColumn(
            name="predict", datatype="BOOL" if kind == "b" else "INT64" if kind in "iu" else "BYTES"
        ),
        OutputColumn(name="predict_proba", datatype="FP32", classes=classes),
    )


def open_session(model: bytes, *, threads: int = 1) -> Any:
    """Open an ONNX model from its bytes, on so many threads of the CPU.

    One row takes 0.05 ms: more threads would spend longer on waking each other than on the trees.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compare(
    pipeline: Pipeline,
    session: Any,
    frame: Any,
    tensors: Mapping[str, Array],
    *,
    task: Task,
    scale: float,
    limit: float,
) -> Parity:
    """Run both on the same rows and measure how far they are apart.

    Args:
        pipeline: As it was read back from its file.
        session: The converted model.
        frame: The rows as scikit-learn reads them.
        tensors: The same rows as ONNX reads them.
        task: A regression compares predictions, a classification the probabilities of all classes.
        scale: Differences are divided by it.
        limit: From where on a row counts as different.
    """
    given = session.run(None, dict(tensors))
    if task == "regression":
        theirs, ours = pipeline.predict(frame).reshape(-1, 1), given[0].reshape(-1, 1)
    else:
        theirs, ours = pipeline.predict_proba(frame), given[1]
    difference = np.abs(ours.astype(np.float64) - theirs).max(axis=1) / scale
    return Parity(
        rows=len(difference),
        max_difference=float(difference.max()),
        share_over=float((difference > limit).mean()),
        limit=limit,
    )
