"""What a training run is made from; two runs of one recipe would make the same model."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

from trilith.settings.schema import TrainingSettings
from trilith_classical.manifest import file_digest

_CODE = ("contract", "conformance", "conversion", "dataset", "manifest", "pipeline")
"""Modules whose change may change the model."""
_LIBRARIES = ("numpy", "onnx", "polars", "scikit-learn", "skl2onnx", "skops")


def recipe(settings: TrainingSettings) -> dict[str, str]:
    """Return digests of data, contract, settings and code, and the versions of what computes."""
    stated = settings.model_dump(mode="json", exclude={"data", "contract"})
    return {
        "data_sha256": file_digest(settings.data),
        "contract_sha256": file_digest(settings.contract),
        "settings_sha256": _sha256(json.dumps(stated, sort_keys=True).encode()),
        "code_sha256": _code_digest(),
        "trilith": version("trilith"),
        "python": platform.python_version(),
        **{library: version(library) for library in _LIBRARIES},
    }


def recipe_digest(made_from: dict[str, str]) -> str:
    """Return one sha256 over a recipe, hexadecimal."""
    return _sha256(json.dumps(made_from, sort_keys=True).encode())


def _code_digest() -> str:
    folder = Path(__file__).parent
    return _sha256(b"".join((folder / f"{name}.py").read_bytes() for name in _CODE))


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
