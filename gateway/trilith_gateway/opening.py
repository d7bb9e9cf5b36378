"""Opens the releases that the settings declare: each kind of model becomes an upstream that can answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import replace

from opentelemetry.trace import Tracer

from trilith.seams import Embedder, Upstream
from trilith.settings.schema import (
    ChatModel,
    ModelSettings,
    PredictorModel,
    RagModel,
    RerankModel,
    ServedModel,
    Settings,
    UpstreamSettings,
)
from trilith_gateway.release import Release, ReleaseTable, declared_digest
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.upstream.http import HttpUpstream, Scheme
from trilith_gateway.upstream.lazy import LazyUpstream
from trilith_gateway.upstream.provider import ProviderUpstream, ProviderWorker


def open_releases(
    settings: Settings,
    engine_urls: Mapping[str, str],
    tracer: Tracer,
    *,
    given: Mapping[str, Upstream] | None = None,
) -> ReleaseTable:
    """Build the table of releases; nothing heavy is loaded and nothing is called yet.

    Args:
        settings: The platform, with absolute paths.
        engine_urls: Where each engine of the settings answers, with `/v1`.
        tracer: Makes the spans of upstreams that run in this process.
        given: Upstreams to use instead of the declared ones, by model name (tests, embedding apps).
    """
    opener = _Opener(settings, engine_urls, tracer)
    upstreams: dict[str, Upstream] = dict(given or {})
    for name, model in settings.models.items():
        if name not in upstreams and isinstance(model, ServedModel):
            upstreams[name] = opener.replicated(name, model)
    for name, model in settings.models.items():
        if name in upstreams:
            continue
        if isinstance(model, RagModel):
            upstreams[name] = opener.rag(name, model, upstreams[model.generator])
        elif isinstance(model, PredictorModel):
            upstreams[name] = opener.predictor(name, model)
    return ReleaseTable({name: _release(settings, name, upstreams[name]) for name in settings.models})


def _release(settings: Settings, name: str, upstream: Upstream) -> Release:
    model = settings.models[name]
    place = model.upstream if isinstance(model, ServedModel) else None
    made = Release(
        model=name,
        kind=model.kind,
        digest=declared_digest(settings, name),
        upstream=upstream,
        upstream_model=_upstream_model(name, place),
        provider=_provider(place),
        policy=model.policy,
        price=model.price.exact() if model.price else None,
        max_output_tokens=model.max_output_tokens if isinstance(model, ChatModel | RagModel) else 0,
        cache_ttl_s=model.cache_ttl_s,
        fallbacks=model.fallbacks if isinstance(model, ChatModel) else (),
        counts_stream_usage=place is not None and place.engine is not None,
        protocol=_protocol(model, place),
        context_tokens=_window(settings, model),
    )
    if model.price is None or model.price.batch_factor == 1:
        return made
    return replace(made, batched=replace(made, price=model.price.for_batches()))


def _protocol(model: ModelSettings, place: UpstreamSettings | None) -> str:
    """Return what a model's upstream speaks: our own and litellm's worker know no responses."""
    if isinstance(model, RagModel) or (place is not None and place.provider is not None):
        return "chat"
    return place.protocol if place is not None else "openai"


def _window(settings: Settings, model: ModelSettings) -> int | None:
    if not isinstance(model, ChatModel):
        return None
    engine = settings.engines.get(model.upstream.engine or "")
    return model.context_tokens or (engine.max_model_len if engine is not None else None)


def _policy(name: str) -> policy.Choose:
    rng = random.Random()
    match name:
        case "weighted":
            return policy.weighted
        case "least_outstanding":
            return policy.least_outstanding
        case "prefix":
            return policy.prefix(rng)
    return policy.power_of_two(rng)


def _upstream_model(name: str, place: UpstreamSettings | None) -> str:
    if place is None:
        return name
    return place.model or place.engine or place.provider or name


def _provider(place: UpstreamSettings | None) -> str:
    if place is None or place.local:
        return "trilith"
    if place.engine:
        return "vllm"
    return place.provider.partition("/")[0] if place.provider else "openai"


def _scheme(place: UpstreamSettings) -> Scheme:
    return "x-api-key" if place.protocol == "anthropic" else "bearer"


class _Opener:
    """Opens upstreams; what several of them can share is made once."""

    def __init__(self, settings: Settings, engine_urls: Mapping[str, str], tracer: Tracer) -> None:
        self._settings = settings
        self._engine_urls = engine_urls
        self._tracer = tracer
        self._worker = ProviderWorker()
        self._embedder: Embedder | None = None
        self._lock = threading.Lock()

    def replicated(self, name: str, model: ServedModel) -> Upstream:
        """A model with all its replicas."""
        first = self.served(name, model.upstream, ranks=isinstance(model, RerankModel))
        if not model.replicas:
            return first
        routing = model.routing
        scheme = _scheme(model.upstream)

        def endpoint(name: str, upstream: Upstream, weight: float = 1) -> Endpoint:
            breaker = Breaker(routing.breaker_failures, routing.breaker_pause_s)
            return Endpoint(name, upstream, weight, breaker)

        endpoints = [endpoint(model.upstream.url or model.upstream.engine or name, first)]
        for place in model.replicas:
            key = place.api_key.get_secret_value() if place.api_key else None
            endpoints.append(
                endpoint(place.url, HttpUpstream(place.url, api_key=key, scheme=scheme), place.weight)
            )
        limits = Limits(routing.attempts, routing.retry_share, routing.hedge_share)
        return RoutedUpstream(
            endpoints, _policy(routing.policy), limits=limits, engine_load=routing.engine_load
        )

    def served(self, name: str, place: UpstreamSettings, *, ranks: bool = False) -> Upstream:
        """A model at one place; `ranks`: it orders documents."""
        key = place.api_key.get_secret_value() if place.api_key else None
        if place.engine is not None:
            return HttpUpstream(self._engine_urls[place.engine])
        if place.url is not None:
            return HttpUpstream(place.url, api_key=key, scheme=_scheme(place))
        if place.provider is not None:
            return ProviderUpstream(place.provider, worker=self._worker, api_base=place.api_base, api_key=key)

        def open() -> Upstream:
            from trilith_rag import EmbeddingUpstream, RerankUpstream

            return (RerankUpstream if ranks else EmbeddingUpstream)(self._minilm(), name)

        return LazyUpstream(name, open, cure="Install it with: pip install 'trilith[rag]'.")

    def rag(self, name: str, model: RagModel, generator: Upstream) -> Upstream:
        """A model that answers from documents."""
        index = self._settings.indexes[model.index]
        place = self._settings.models[model.generator]
        if not isinstance(place, ChatModel):
            raise TypeError(f"{model.generator!r} is not a chat model")  # the settings were checked for it

        def open() -> Upstream:
            from trilith_rag import RagUpstream, open_index

            retriever = open_index(
                index,
                home=self._settings.home,
                name=model.index,
                embedder=self._minilm(),
                tracer=self._tracer,
            )
            return RagUpstream(
                name,
                retriever,
                generator,
                _upstream_model(model.generator, place.upstream),
                top_k=model.top_k,
                max_output_tokens=model.max_output_tokens,
                provider_name=_provider(place.upstream),
                tracer=self._tracer,
            )

        return LazyUpstream(name, open, cure=f"Build its index with: trilith ingest {model.index}.")

    def predictor(self, name: str, model: PredictorModel) -> Upstream:
        """A classical model."""
        if model.upstream is not None and model.upstream.url is not None:
            from trilith_gateway.inference.remote import RemotePredictor

            place = model.upstream
            key = place.api_key.get_secret_value() if place.api_key else None
            return RemotePredictor(model.upstream.url, place.model or name, name, api_key=key)

        def open() -> Upstream:
            from trilith_classical import open_predictor

            home = self._settings.home
            return open_predictor(model.registered_model, model.alias, home=home, settings=model)

        return LazyUpstream(name, open, cure=f"Train it with: trilith train {model.registered_model}.")

    def _minilm(self) -> Embedder:
        from trilith_rag import MiniLmEmbedder

        with self._lock:
            if self._embedder is None:
                self._embedder = MiniLmEmbedder()
            return self._embedder
