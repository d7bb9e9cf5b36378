"""Releases: the immutable things that answer for a model, and the table that names the present one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trilith.money import Price
from trilith.seams import Upstream
from trilith.settings.schema import ModelSettings, Settings
from trilith.types import Kind


@dataclass(frozen=True, slots=True)
class Release:
    """One thing that can answer for a model."""

    model: str
    """The public name."""
    kind: Kind
    digest: str
    """sha256 (12 hexadecimal digits) over everything that decides the answer, as declared."""
    upstream: Upstream
    upstream_model: str
    """The upstream's own name of the model."""
    provider: str
    """Who answers, by OpenTelemetry's `gen_ai.provider.name`: `vllm`, `trilith`, `anthropic`, ..."""
    policy: str | None
    price: Price | None
    """None: unpriced, which is a state with an alarm, never zero."""
    max_output_tokens: int
    cache_ttl_s: float | None
    counts_stream_usage: bool = False
    """The upstream can report usage with every chunk (vLLM's `continuous_usage_stats`)."""

    protocol: str = "openai"
    """What the upstream speaks; see `UpstreamSettings.protocol`."""
    batched: Release | None = None
    """The same release at the price of batches; None: they cost the same."""
    context_tokens: int | None = None
    """The model's window, where it is known."""

    fallbacks: tuple[str, ...] = ()
    """Models to ask instead when this one cannot answer."""
    price_id: str = field(init=False)
    """sha256 (12 hexadecimal digits) of the price, for the ledger's row."""

    @property
    def version(self) -> str:
        """How the release is named beside its model."""
        return self.digest

    def __post_init__(self) -> None:
        object.__setattr__(self, "price_id", digest([str(self.price)]))


def digest(parts: object) -> str:
    """Return 12 hexadecimal digits that change when `parts` change."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def declared_digest(settings: Settings, name: str) -> str:
    """Return the digest of a model's release as the settings declare it, without opening anything."""
    model = settings.models[name]
    parts: dict[str, object] = {"name": name, "model": _answering(model)}
    upstream = getattr(model, "upstream", None)
    if upstream is not None and upstream.engine is not None:
        parts["engine"] = settings.engines[upstream.engine].model_dump(exclude={"port", "ready_timeout_s"})
    if model.kind is Kind.RAG:
        parts["index"] = settings.indexes[model.index].model_dump(exclude={"qdrant_api_key"})
        parts["generator"] = declared_digest(settings, model.generator)
    return digest(parts)


def _answering(model: ModelSettings) -> dict[str, object]:
    """What decides the answer: not who pays, nor which of several equal servers answers, and no secret."""
    return model.model_dump(
        exclude={
            "price": True,
            "policy": True,
            "cache_ttl_s": True,
            "upstream": {"api_key"},
            "replicas": True,
            "routing": True,
            "fallbacks": True,
        }
    )


class ReleaseTable:
    """Which release answers for which model; what it holds is replaced as a whole, never changed."""

    def __init__(self, releases: Mapping[str, Release]) -> None:
        self._releases = dict(releases)

    def find(self, model: str) -> Release | None:
        """Return the release that answers for `model`, or None."""
        return self._releases.get(model)

    def replace(self, other: ReleaseTable) -> None:
        """Take the releases of another table, in one step."""
        self._releases = other._releases

    def __iter__(self) -> Iterator[Release]:
        return iter(self._releases.values())
