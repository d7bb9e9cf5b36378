"""Opens the releases that the settings declare: each kind of model becomes an upstream that can answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from opentelemetry.trace import Tracer

from trilith.money import Price
from trilith.seams import Embedder, Upstream
from trilith.settings.fault import without_userinfo
from trilith.settings.model import (
    ChatModel,
    ImageModel,
    ModelSettings,
    PredictorModel,
    RagModel,
    ReplicaSettings,
    ReplicatedModel,
    RerankModel,
    ServedModel,
    UpstreamSettings,
)
from trilith.settings.routing import RoutingSettings
from trilith.settings.schema import Settings
from trilith.types import Kind
from trilith_gateway import enginecost
from trilith_gateway.release import Release, ReleaseTable, declared_digest, digest
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.gate import Gate
from trilith_gateway.routing.health import Check
from trilith_gateway.routing.outlier import Ejection
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.upstream.http import HttpUpstream, Scheme
from trilith_gateway.upstream.lazy import LazyUpstream
from trilith_gateway.upstream.provider import ProviderUpstream, ProviderWorker
from trilith_gateway.upstream.renamed import RenamedUpstream


def open_releases(
    settings: Settings,
    engine_urls: Mapping[str, str],
    tracer: Tracer,
    *,
    given: Mapping[str, Upstream] | None = None,
    embedder: Callable[[], Embedder] | None = None,
) -> ReleaseTable:
    """Build the table of releases; nothing heavy is loaded and nothing is called yet.

    Args:
        settings: The platform, with absolute paths.
        engine_urls: Where each engine of the settings answers, with `/v1`.
        tracer: Makes the spans of upstreams that run in this process.
        given: Upstreams to use instead of the declared ones, by model name (tests, embedding apps).
        embedder: Returns the local embedding model, if others use it as well.
    """
    opener = _Opener(settings, engine_urls, tracer, embedder or shared_embedder())
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
        price=price_of(settings, name),
        max_output_tokens=model.max_output_tokens if isinstance(model, ChatModel | RagModel) else 0,
        cache=model.cache,
        candidates=model.candidates,
        fallbacks=model.fallbacks if isinstance(model, ChatModel | PredictorModel) else (),
        gate=Gate(model.max_concurrency, model.queue_length, model.queue_wait_s)
        if model.max_concurrency is not None
        else None,
        tries_again=isinstance(upstream, RoutedUpstream) or model.kind is Kind.RAG,
        routes=() if isinstance(model, PredictorModel) else model.routes,
        steps=model.cascade if isinstance(model, ChatModel) else (),
        otherwise=model.otherwise if isinstance(model, ChatModel) else None,
        counts_stream_usage=place is not None and place.engine is not None,
        policy_digest=digest(settings.policies[model.policy].model_dump()) if model.policy else "",
        protocol=_protocol(model, place),
        context_tokens=_window(settings, model),
        place=_place(model),
    )
    if isinstance(model, ChatModel | ImageModel):
        made = replace(made, reference_tokens=model.reference_tokens)
    if isinstance(model, ChatModel):
        made = replace(made, conversations=model.conversations)
    if model.price is None or model.price.batch_factor is None:
        return made
    return replace(made, batched=replace(made, price=price_of(settings, name, batched=True)))


def _protocol(model: ModelSettings, place: UpstreamSettings | None) -> str:
    """Return what a model's upstream speaks: our own and litellm's worker know no responses."""
    if isinstance(model, RagModel) or (place is not None and place.provider is not None):
        return "chat"
    return place.protocol if place is not None else "openai"


def _place(model: ModelSettings) -> str:
    """Return where a model's only upstream is, as ledger and `trilith explain` name it."""
    if isinstance(model, ServedModel):
        return "" if model.replicas else _placed(model.upstream)
    if not isinstance(model, PredictorModel) or model.upstream is None or model.replicas:
        return ""
    return _placed(model.upstream)


def _placed(place: UpstreamSettings) -> str:
    return without_userinfo(place.url or place.engine or place.provider or "")


def _window(settings: Settings, model: ModelSettings) -> int | None:
    if not isinstance(model, ChatModel):
        return None
    engine = settings.engines.get(model.upstream.engine or "")
    return model.context_tokens or (engine.max_model_len if engine is not None else None)


def price_of(settings: Settings, name: str, *, batched: bool = False) -> Price | None:
    """Return a model's price: as the settings give it, or the standard rate of its server; None: unpriced.

    Args:
        settings: The platform.
        name: The model's.
        batched: The price of batches' lines.
    """
    model = settings.models.get(name)
    if model is None:
        return None
    if model.price is None:
        return enginecost.standard(settings, name)
    return model.price.for_batches() if batched else model.price.exact()


def shared_embedder() -> Callable[[], Embedder]:
    """Return what makes the local embedding model when it is first asked, and then gives the same again."""
    made: list[Embedder] = []
    lock = threading.Lock()

    def embedder() -> Embedder:
        from trilith_rag import MiniLmEmbedder

        with lock:
            if not made:
                opened = MiniLmEmbedder()
                opened.warm()  # what it lacks is heard by whoever opens a model with it
                made.append(opened)
            return made[0]

    return embedder


def _policy(routing: RoutingSettings) -> policy.Choose:
    rng = random.Random()
    match routing.policy:
        case "weighted":
            return policy.weighted
        case "least_outstanding":
            return policy.least_outstanding
        case "prefix":
            return policy.Prefix(rng)
        case "cost":
            return policy.cheapest(routing.cost_wait_s)
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


def _secret(place: UpstreamSettings | ReplicaSettings) -> str | None:
    return place.api_key.get_secret_value() if place.api_key else None


def _several(
    name: str,
    model: ReplicatedModel,
    place: UpstreamSettings,
    first: Upstream,
    another: Callable[[ReplicaSettings], Upstream],
) -> Upstream:
    """Return what asks `first`, and where the model has replicas one of all."""
    if not model.replicas:
        return first
    routing = model.routing
    endpoints: list[Endpoint] = []

    def add(named: str, upstream: Upstream, place: UpstreamSettings | ReplicaSettings) -> None:
        names = {endpoint.name for endpoint in endpoints}
        while named in names:  # the same address twice; the ring tells replicas apart by their names
            named += "'"
        breaker = Breaker(routing.breaker_failures, routing.breaker_pause_s)
        weight = place.weight if isinstance(place, ReplicaSettings) else 1
        tags = frozenset(place.tags)
        endpoints.append(Endpoint(named, upstream, weight, breaker, place.cost_weight, tags))

    add(_placed(place) or name, first, place)
    for replica in model.replicas:
        add(without_userinfo(replica.url), another(replica), replica)
    return RoutedUpstream(
        endpoints,
        _policy(routing),
        why=routing.policy,
        limits=Limits(routing.attempts, routing.retry_share, routing.hedge_share, routing.attempt_timeout_s),
        engine_load=routing.engine_load,
        check=_check(routing, model.kind),
        ejection=Ejection(**routing.ejection.model_dump()) if routing.ejection else None,
    )


def _check(routing: RoutingSettings, kind: Kind) -> Check | None:
    if routing.health is None:
        return None
    usual = "/v2/health/ready" if kind is Kind.PREDICTOR else "/health"
    return Check(**{**routing.health.model_dump(), "path": routing.health.path or usual})


class _Opener:
    """Opens upstreams; what several of them can share is made once."""

    def __init__(
        self,
        settings: Settings,
        engine_urls: Mapping[str, str],
        tracer: Tracer,
        minilm: Callable[[], Embedder],
    ) -> None:
        self._settings = settings
        self._engine_urls = engine_urls
        self._tracer = tracer
        self._worker = ProviderWorker()
        self._minilm = minilm

    def replicated(self, name: str, model: ServedModel) -> Upstream:
        """A model with all its replicas."""
        first = self.served(name, model.upstream, ranks=isinstance(model, RerankModel))
        own_name = _upstream_model(name, model.upstream)

        def another(place: ReplicaSettings) -> Upstream:
            upstream = HttpUpstream(place.url, api_key=_secret(place), scheme=_scheme(model.upstream))
            if place.model is None or place.model == own_name:
                return upstream
            return RenamedUpstream(upstream, place.model)

        return _several(name, model, model.upstream, first, another)

    def served(self, name: str, place: UpstreamSettings, *, ranks: bool = False) -> Upstream:
        """A model at one place; `ranks`: it orders documents."""
        key = _secret(place)
        if place.engine is not None:
            return HttpUpstream(self._engine_urls[place.engine])
        if place.url is not None:
            return HttpUpstream(place.url, api_key=key, scheme=_scheme(place))
        if place.provider is not None:
            return ProviderUpstream(place.provider, worker=self._worker, api_base=place.api_base, api_key=key)

        def open() -> Upstream:
            from trilith_rag import EmbeddingUpstream, RerankUpstream

            return (RerankUpstream if ranks else EmbeddingUpstream)(self._minilm(), name)

        return LazyUpstream(name, open)

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
                place=_place(place),
                tracer=self._tracer,
            )

        return LazyUpstream(name, open)

    def predictor(self, name: str, model: PredictorModel) -> Upstream:
        """A classical model."""
        place = model.upstream
        if place is not None:
            from trilith_gateway.inference.remote import RemotePredictor

            own_name = place.model or name

            def another(place: UpstreamSettings | ReplicaSettings) -> Upstream:
                return RemotePredictor(
                    place.url or "",
                    place.model or own_name,
                    name,
                    api_key=_secret(place),
                    control=model.control,
                )

            return _several(name, model, place, another(place), another)

        def open() -> Upstream:
            from trilith_classical import open_predictor

            home = self._settings.home
            return open_predictor(model.registered_model, model.alias, home=home, settings=model)

        return LazyUpstream(name, open)
