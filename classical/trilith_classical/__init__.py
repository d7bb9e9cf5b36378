"""Classical models: contract, training, registry, and predictors that answer the Open Inference Protocol.

Importing this loads none of the libraries behind it; each name brings its own when it is first used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trilith.settings.model import PredictorModel
    from trilith_classical.predictor import OnnxPredictor
    from trilith_classical.registry import MlflowRegistry
    from trilith_classical.training import Outcome, TrainingReport, train
    from trilith_classical.upstream import PredictorUpstream

__all__ = [
    "MlflowRegistry",
    "OnnxPredictor",
    "Outcome",
    "PredictorUpstream",
    "TrainingReport",
    "open_predictor",
    "train",
]

_HOMES = {
    "MlflowRegistry": "registry",
    "OnnxPredictor": "predictor",
    "Outcome": "training",
    "PredictorUpstream": "upstream",
    "TrainingReport": "training",
    "train": "training",
}


def open_predictor(
    registered_model: str, alias: str, *, home: Path, settings: PredictorModel | None = None
) -> PredictorUpstream:
    """Load the version that an alias names and put it behind the Open Inference Protocol. Blocking.

    Args:
        registered_model: Its name in the registry.
        alias: Which version, such as `champion`.
        home: The platform's folder.
        settings: How it is served; None: as a model without further settings.

    Raises:
        DataError: there is no such model or alias.
        IntegrityError: its files are not those that were registered.
        MissingExtra: onnxruntime is not installed.
    """
    from trilith.extras import need

    need("onnxruntime", extra="classical")
    from trilith_classical.serving import opening

    return opening.open_upstream(registered_model, alias, home=home, settings=settings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
