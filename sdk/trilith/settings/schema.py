"""Every setting, its type, its default and its meaning: the one table that all else is made from.

The reference page, the JSON schema and the environment variables' names derive from these classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from trilith.settings.between import ReferenceFaults, reference_faults
from trilith.settings.engine import EngineSettings
from trilith.settings.model import ModelSettings
from trilith.settings.policy import PolicySettings
from trilith.settings.section import Section
from trilith.settings.server import BatchSettings, GatewaySettings, StoreSettings, TelemetrySettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
"""A public name: letters, digits, `. _ / -`, at most 128 characters."""


class IndexSettings(Section):
    """A searchable index over a folder of documents."""

    source: Path
    """Folder that `trilith ingest` reads (.md, .html, .pdf, .txt), relative to the settings file."""
    embedder: Literal["all-minilm-l6-v2"] = "all-minilm-l6-v2"
    """Sentence-transformers model."""
    chunk_chars: int = Field(800, ge=100, le=8000)
    """Longest passage (characters)."""
    chunk_overlap_chars: int = Field(100, ge=0)
    """How much neighbouring passages share (characters)."""
    qdrant_url: str | None = None
    """A Qdrant server; none: the Rust engine in this process, under `<home>/indexes`."""
    qdrant_api_key: SecretStr | None = None
    """The server's credential. Write it as `${VARIABLE}`."""

    @model_validator(mode="after")
    def _overlap(self) -> IndexSettings:
        if self.chunk_overlap_chars >= self.chunk_chars:
            raise ValueError("chunk_overlap_chars must be smaller than chunk_chars")
        return self


class TrainingSettings(Section):
    """How `trilith train` makes one registered model."""

    data: Path
    """Parquet or CSV file, relative to the settings file."""
    contract: Path
    """Data contract (YAML), relative to the settings file; checked before anything is trained."""
    target: str
    """Column to predict."""
    time_column: str | None = None
    """Column that orders the rows; the last part in time becomes the test set."""
    numeric: tuple[str, ...] = ()
    """Columns used as numbers."""
    categorical: tuple[str, ...] = ()
    """Columns used as categories."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the rows that is held out."""
    seed: int = 0
    """Seed of every random choice."""
    max_abs_difference: float = Field(1e-3, gt=0)
    """Largest allowed |ONNX - scikit-learn| relative to the target's standard deviation."""


class Settings(Section):
    """A whole platform."""

    home: Path = Path(".trilith")
    """Folder for everything that is stored, relative to the settings file."""
    gateway: GatewaySettings = GatewaySettings()
    """The HTTP server."""
    store: StoreSettings = StoreSettings()
    """Where keys, ledger, audit and leases are kept."""
    telemetry: TelemetrySettings = TelemetrySettings()
    """Traces and metrics."""
    batches: BatchSettings = BatchSettings()
    """Files and batches."""
    engines: dict[Name, EngineSettings] = {}
    """Local vLLM engines by name."""
    policies: dict[Name, PolicySettings] = {}
    """Governance rules by name."""
    models: dict[Name, ModelSettings] = {}
    """Public models by name."""
    indexes: dict[Name, IndexSettings] = {}
    """Document indexes by name."""
    training: dict[Name, TrainingSettings] = {}
    """Classical models to train, by registered name."""

    @model_validator(mode="after")
    def _references(self) -> Settings:
        faults = reference_faults(self.model_dump())
        if faults:
            raise ReferenceFaults(faults)
        return self
