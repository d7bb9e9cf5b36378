"""Opens a predictor as its settings say: registry, versions, feature table."""

from __future__ import annotations

from pathlib import Path

from trilith.settings.model import PredictorModel
from trilith.types import Kind
from trilith_classical.predictor import OnnxPredictor
from trilith_classical.registry import MlflowRegistry
from trilith_classical.serving.feature import SqliteFeatures
from trilith_classical.serving.host import ModelHost, Serving
from trilith_classical.upstream import Lookup, PredictorUpstream


class RegisteredVersions:
    """The versions of one registered model, as one alias names them."""

    def __init__(self, registry: MlflowRegistry, name: str, alias: str, *, threads: int = 1) -> None:
        self._registry = registry
        self._name = name
        self._alias = alias
        self._threads = threads

    def named(self) -> str | None:
        """Return the version that the alias names now."""
        return self._registry.alias_version(self._name, self._alias)

    def open(self, version: str) -> OnnxPredictor:
        """Load a version and warm it up."""
        return OnnxPredictor(self._registry.open_version(self._name, version), threads=self._threads)


def open_upstream(
    registered_model: str, alias: str, *, home: Path, settings: PredictorModel | None = None
) -> PredictorUpstream:
    """Load what the settings name. Blocking; arguments and errors as of `open_predictor`."""
    chosen = settings or PredictorModel(kind=Kind.PREDICTOR, registered_model=registered_model, alias=alias)
    registry = MlflowRegistry(home)
    catalogue = RegisteredVersions(registry, registered_model, alias, threads=chosen.threads)
    first = OnnxPredictor(registry.resolve(registered_model, alias), threads=chosen.threads)
    besides = [catalogue.open(version) for version in chosen.versions if version != first.model.version]
    serving = Serving(
        versions=chosen.versions,
        poll_s=chosen.alias_poll_s,
        max_batch_rows=chosen.max_batch_rows,
        max_wait_s=chosen.max_batch_wait_ms / 1000,
    )
    features = chosen.features
    lookup = None
    if features is not None:
        lookup = Lookup(SqliteFeatures(home, features.view), features.entity)
    return PredictorUpstream(
        registered_model,
        ModelHost(first, catalogue, serving, besides),
        lookup=lookup,
        control=chosen.control,
    )
