"""The scikit-learn pipeline: how it is built, and how it is kept and read back without pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from trilith.errors import IntegrityError
from trilith_classical.manifest import InputColumn, Task

Pipeline: TypeAlias = Any
"""A fitted `sklearn.pipeline.Pipeline`; scikit-learn ships no types."""

KNOWN_TYPES = frozenset({"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})
"""Types beyond skops' own safe ones that a pipeline of ours is made of."""

_TREES = 300
_LEARNING_RATE = 0.1


def build(columns: Sequence[InputColumn], task: Task, *, seed: int) -> Pipeline:
    """Return an unfitted pipeline.

    Trees need no scaling, so numbers pass as they are, missing ones as NaN. Each category becomes a column
    of its own; one that training has not seen becomes none of them.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.preprocessing import OneHotEncoder

    numeric = [column.name for column in columns if not column.categorical]
    # One encoder for each column: skl2onnx cannot convert one that reads integers and strings together.
    encoders = [
        (
            f"category {column.name}",
            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            [column.name],
        )
        for column in columns
        if column.categorical
    ]
    kind = HistGradientBoostingRegressor if task == "regression" else HistGradientBoostingClassifier
    model = kind(max_iter=_TREES, learning_rate=_LEARNING_RATE, early_stopping=False, random_state=seed)
    passed = [("numeric", "passthrough", numeric)] if numeric else []
    return _pipeline([("columns", ColumnTransformer([*passed, *encoders])), ("model", model)])


def _pipeline(steps: list[tuple[str, Any]]) -> Pipeline:
    from sklearn.pipeline import Pipeline as SklearnPipeline

    return SklearnPipeline(steps)


def save(pipeline: Pipeline, path: Path) -> tuple[str, ...]:
    """Write a pipeline that was made here in skops' format.

    Returns:
        The types in it that a reader has to trust by name.

    Raises:
        IntegrityError: it holds a type that pipelines of ours never do.
    """
    import skops.io

    raw = skops.io.dumps(pipeline)
    types = tuple(sorted(skops.io.get_untrusted_types(data=raw)))
    if unknown := set(types) - KNOWN_TYPES:
        raise IntegrityError(
            f"the pipeline holds {', '.join(sorted(unknown))}, which is not among the known types"
        )
    path.write_bytes(raw)
    return types


def load(path: Path, *, digest: str, trusted: Iterable[str]) -> Pipeline:
    """Read a pipeline back. Nothing in the file is run or imported beyond skops' safe types and `trusted`.

    Args:
        path: `model.skops` of a version.
        digest: Its sha256 from the manifest that the registry vouches for.
        trusted: Further types, from the same manifest: never the file's own word.

    Raises:
        IntegrityError: the file is not the one that was recorded, or is no skops file.
    """
    import zipfile

    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != digest:
        raise IntegrityError(
            f"{path}: is not the file that was registered (its sha256 differs); train it again"
        )
    allowed = sorted(KNOWN_TYPES.intersection(trusted))
    try:
        return skops.io.loads(raw, trusted=allowed)
    except (zipfile.BadZipFile, UntrustedTypesFoundException, LookupError, TypeError, ValueError) as error:
        raise IntegrityError(f"{path}: is not a pipeline that was saved here: {error}") from error
