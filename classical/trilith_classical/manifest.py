"""The record that lies beside a model: what goes in and comes out, what it was made from, how good it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from trilith.errors import IntegrityError

ONNX = "model.onnx"
SKOPS = "model.skops"
MANIFEST = "manifest.json"
FILES = (ONNX, SKOPS, MANIFEST)
"""What every registered version consists of."""

Datatype = Literal["BOOL", "INT64", "FP32", "BYTES"]
"""The Open Inference Protocol's names of the types that a served model takes and gives."""
Task = Literal["regression", "classification"]


class Record(BaseModel):
    """A frozen mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InputColumn(Record):
    """One column that the model reads, as one tensor of shape `(rows, 1)`."""

    name: str
    datatype: Datatype
    """BOOL and INT64 enter ONNX as int64, FP32 as float, BYTES as string."""
    categorical: bool = False
    nullable: bool = False
    """Whether a value may be missing; only ever true for FP32."""
    categories: tuple[int | str, ...] = ()
    """What a categorical column may hold, sorted."""
    closed: bool = False
    """Whether the contract lists the categories: others are then refused, as they were before training.
    Open: an unknown category counts as none of the known ones, as it did in training.
    """


class OutputColumn(Record):
    """One output, in the order in which the ONNX graph gives them."""

    name: str
    datatype: Datatype
    classes: tuple[bool | int | str, ...] = ()
    """Labels of the columns, where there is more than one value per row."""


class Split(Record):
    """Which rows were trained on and which were held out: the last in time."""

    train_rows: int
    test_rows: int
    trained_until: int
    """Last row that was trained on: microseconds since 1970, or the row's number without a time column."""
    test_from: str
    """First held-out row, for people."""


class Parity(Record):
    """How far ONNX and scikit-learn are apart on the held-out rows."""

    rows: int
    max_difference: float
    """Largest |ONNX - scikit-learn|: in standard deviations of the target, or of a probability as it is."""
    share_over: float
    """Share of the rows that differ by more than `limit`."""
    limit: float

    @property
    def passed(self) -> bool:
        """Whether no row differs by more than the limit."""
        return self.max_difference <= self.limit


class Manifest(Record):
    """Everything that is recorded about one version."""

    format: Literal[1] = 1
    name: str
    """Registered model."""
    task: Task
    target: str
    time_column: str | None
    inputs: tuple[InputColumn, ...]
    outputs: tuple[OutputColumn, ...]
    split: Split
    metrics: dict[str, float]
    """Of the ONNX model on the held-out rows."""
    baseline: dict[str, float]
    """The same metrics of the naive forecast `baseline_name`."""
    baseline_name: str
    parity: Parity
    recipe: dict[str, str]
    """Digests of data, contract, settings and code, and versions of the libraries."""
    trusted: tuple[str, ...]
    """Types beyond skops' own safe ones that `model.skops` holds, as counted before it was written."""
    digests: dict[str, str]
    """sha256 of `model.onnx` and `model.skops`, hexadecimal."""

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` from a version's folder.

    Raises:
        IntegrityError: the file is missing or is not a manifest.
    """
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read: {error.strerror}; train the model again") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(
            f"{path}: is not a manifest of this version of Trilith: {place}: {first['msg']}; "
            "train the model again"
        ) from None


def file_digest(path: Path) -> str:
    """Return a file's sha256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
