"""Opens the releases that the settings declare: each kind of model becomes an upstream that can answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trilith.errors import InternalServerError
from trilith.seams import Upstream
from trilith.settings.schema import (
    ChatModel,
    EmbeddingModel,
    IndexSettings,
    PredictorModel,
    RagModel,
    Settings,
    UpstreamSettings,
)
from trilith_gateway.release import Release, ReleaseTable, declared_digest
from trilith_gateway.upstream.http import HttpUpstream
from trilith_gateway.upstream.lazy import LazyUpstream
from trilith_gateway.upstream.provider import ProviderUpstream, ProviderWorker


def open_releases(
    settings: Settings, engine_urls: Mapping[str, str], *, given: Mapping[str, Upstream] | None = None
) -> ReleaseTable:
    """Build the table of releases; nothing heavy is loaded and nothing is called yet.

    Args:
        settings: The platform, with absolute paths.
        engine_urls: Where each engine of the settings answers, with `/v1`.
        given: Upstreams to use instead of the declared ones, by model name (tests, embedding apps).
    """
    upstreams: dict[str, Upstream] = dict(given or {})
    worker = ProviderWorker()
    for name, model in settings.models.items():
        if name not in upstreams and isinstance(model, ChatModel | EmbeddingModel):
            upstreams[name] = _served(name, model.upstream, engine_urls, worker)
    for name, model in settings.models.items():
        if name in upstreams:
            continue
        if isinstance(model, RagModel):
            upstreams[name] = _rag(settings, name, model, upstreams[model.generator])
        elif isinstance(model, PredictorModel):
            upstreams[name] = _predictor(settings.home, name, model)
    return ReleaseTable({name: _release(settings, name, upstreams[name]) for name in settings.models})


def _release(settings: Settings, name: str, upstream: Upstream) -> Release:
    model = settings.models[name]
    place = model.upstream if isinstance(model, ChatModel | EmbeddingModel) else None
    return Release(
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
        counts_stream_usage=place is not None and place.engine is not None,
    )


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


def _served(
    name: str, place: UpstreamSettings, engine_urls: Mapping[str, str], worker: ProviderWorker
) -> Upstream:
    key = place.api_key.get_secret_value() if place.api_key else None
    if place.engine is not None:
        return HttpUpstream(engine_urls[place.engine])
    if place.url is not None:
        return HttpUpstream(place.url, api_key=key)
    if place.provider is not None:
        return ProviderUpstream(place.provider, worker=worker, api_base=place.api_base, api_key=key)
    return LazyUpstream(name, lambda: _embedder(name), cure="Install it with: pip install 'trilith[rag]'.")


def _embedder(name: str) -> Upstream:
    from trilith_rag import EmbeddingUpstream, MiniLmEmbedder

    return EmbeddingUpstream(MiniLmEmbedder(), name)


def _rag(settings: Settings, name: str, model: RagModel, generator: Upstream) -> Upstream:
    index: IndexSettings = settings.indexes[model.index]
    place = settings.models[model.generator]
    if not isinstance(place, ChatModel):
        raise InternalServerError(f"{model.generator!r} is not a chat model", status_code=500)

    def open() -> Upstream:
        from trilith_rag import RagUpstream, open_index

        return RagUpstream(
            name,
            open_index(index, home=settings.home, name=model.index),
            generator,
            _upstream_model(model.generator, place.upstream),
            top_k=model.top_k,
            max_output_tokens=model.max_output_tokens,
            provider_name=_provider(place.upstream),
        )

    return LazyUpstream(name, open, cure=f"Build its index with: trilith ingest {model.index}.")


def _predictor(home: Path, name: str, model: PredictorModel) -> Upstream:
    def open() -> Upstream:
        from trilith_classical import open_predictor

        return open_predictor(model.registered_model, model.alias, home=home)

    return LazyUpstream(name, open, cure=f"Train it with: trilith train {model.registered_model}.")
