"""Releases: the immutable things that answer for a model, and the table that names the present one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from trilith.money import Price
from trilith.seams import Upstream, Versioned
from trilith.settings.cache import CacheSettings
from trilith.settings.model import ChatModel, ModelSettings
from trilith.settings.routing import RouteSettings, StepSettings
from trilith.settings.schema import Settings
from trilith.types import Kind
from trilith_gateway.routing.gate import Gate


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
    cache: CacheSettings | None
    """How answers are kept; None: not at all."""
    counts_stream_usage: bool = False
    """The upstream can report usage with every chunk (vLLM's `continuous_usage_stats`)."""

    protocol: str = "openai"
    """What the upstream speaks; see `UpstreamSettings.protocol`."""
    batched: Release | None = None
    """The same release at the price of batches; None: they cost the same."""
    context_tokens: int | None = None
    """The model's window, where it is known."""
    reference_tokens: int = 8192
    """The most that a picture, a sound or a file comes to."""

    conversations: bool = False
    """Callers may name conversations that the upstream keeps, whosever they are."""
    place: str = ""
    """Where its only upstream is, by address, engine or provider; empty where it is in this process, or
    several."""
    tries_again: bool = False
    """The upstream is several, and may ask more than one of them for the same answer."""
    candidates: tuple[str, ...] = ()
    """Models whose releases may answer in its name, when a caller asks for them by digest."""
    fallbacks: tuple[str, ...] = ()
    """Models to ask instead when this one cannot answer."""
    gate: Gate | None = field(default=None, compare=False)
    """Its queue, where it takes only so many calls at once."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model, or only some replicas, answer."""
    steps: tuple[StepSettings, ...] = ()
    """Models to ask before this one."""
    otherwise: StepSettings | None = None
    """A predictor to ask when this one does not answer."""
    policy_digest: str = ""
    """sha256 (12 hexadecimal digits) of the policy's own settings: no kept answer outlives their change."""
    answers_from: Callable[[], str | None] | None = field(init=False)
    """Names what the upstream answers from, where that changes without a new release; see `Versioned`."""
    price_id: str = field(init=False)
    """sha256 (12 hexadecimal digits) of the price, for the ledger's row, behind the price book's edition."""
    bound: Price | None = field(init=False)
    """A price at which no call of the release costs more than it may be charged."""

    @property
    def version(self) -> str:
        """How the release is named beside its model."""
        return self.digest

    def priced(self, *, batched: bool) -> Release:
        """Return the release at the price that single requests, or lines of batches, have there."""
        return self.batched if batched and self.batched is not None else self

    def __post_init__(self) -> None:
        object.__setattr__(self, "price_id", price_id(self.price))
        object.__setattr__(self, "bound", None if self.price is None else self.price.dearest())
        upstream = self.upstream
        versioned = upstream.version if isinstance(upstream, Versioned) else None
        object.__setattr__(self, "answers_from", versioned)


def price_id(price: Price | None) -> str:
    """Return what names a price in the ledger; the same price has the same name in every process."""
    found = digest([str(price)])
    return f"{price.source} {found}" if price is not None and price.source else found


def digest(parts: object) -> str:
    """Return 12 hexadecimal digits that change when `parts` change."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def declared_digest(settings: Settings, name: str) -> str:
    """Return the digest of a model's release as the settings declare it, without opening anything."""
    model = settings.models[name]
    return digest(_declared(settings, name, _answering(model)) | _asked(settings, model))


def _asked(settings: Settings, model: ModelSettings) -> dict[str, object]:
    """What others answer for a cascade: each without those whom it would ask itself."""
    if not isinstance(model, ChatModel):
        return {}
    steps = (*model.cascade, *((model.otherwise,) if model.otherwise is not None else ()))
    names = [name for step in steps for name in (step.model, step.check and step.check.model) if name]
    alone = {name: _answering(settings.models[name]) for name in names}
    for parts in alone.values():
        for asked in ("cascade", "otherwise"):
            parts.pop(asked, None)
    return {"asked": [_declared(settings, name, parts) for name, parts in alone.items()]} if alone else {}


def _declared(settings: Settings, name: str, answering: dict[str, object]) -> dict[str, object]:
    model = settings.models[name]
    parts: dict[str, object] = {"name": name, "model": answering}
    upstream = getattr(model, "upstream", None)
    if upstream is not None and upstream.engine is not None:
        parts["engine"] = settings.engines[upstream.engine].model_dump(
            exclude={"port", "ready_timeout_s", "cost"}
        )
    if model.kind is Kind.RAG:
        parts["index"] = settings.indexes[model.index].model_dump(exclude={"qdrant_api_key"})
        parts["generator"] = declared_digest(settings, model.generator)
    return parts


def _answering(model: ModelSettings) -> dict[str, object]:
    """What decides the answer: not who pays, nor which of several equal servers answers, and no secret."""
    decided: dict[str, object] = model.model_dump(
        exclude={
            "price": True,
            "reference_tokens": True,
            "conversations": True,
            "policy": True,
            "cache": True,
            "max_concurrency": True,
            "queue_length": True,
            "queue_wait_s": True,
            "upstream": {"api_key", "cost", "cost_weight", "tags"},
            "replicas": True,
            "routing": True,
            "routes": True,
            "fallbacks": True,
            "candidates": True,
        }
    )
    return {name: part for name, part in decided.items() if part or name not in ("cascade", "otherwise")}


def _queueing(release: Release, before: Release | None) -> Release:
    """Return a release with the queue of the one before it."""
    if release.gate is None or before is None or before.gate is None:
        return release
    before.gate.adopt(release.gate.places, release.gate.queue, release.gate.wait_s)
    batched = release.batched and replace(release.batched, gate=before.gate)
    return replace(release, gate=before.gate, batched=batched)


class ReleaseTable:
    """Which release answers for which model; what it holds is replaced as a whole, never changed."""

    def __init__(self, releases: Mapping[str, Release]) -> None:
        self._releases = dict(releases)

    def find(self, model: str) -> Release | None:
        """Return the release that answers for `model`, or None."""
        return self._releases.get(model)

    def replace(self, other: ReleaseTable) -> None:
        """Take the releases of another table, in one step; the queues of models that stay go on."""
        self._releases = {
            name: _queueing(release, self._releases.get(name)) for name, release in other._releases.items()
        }

    def __iter__(self) -> Iterator[Release]:
        return iter(self._releases.values())
