"""Settings of public models: who answers under a name, and what it costs."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from trilith.settings.cache import AnswerCacheSettings, CacheSettings
from trilith.settings.engine import EngineCostSettings
from trilith.settings.price import PriceSettings
from trilith.settings.routing import RouteSettings, RoutingSettings, StepSettings
from trilith.settings.section import Section
from trilith.types import Kind


def _http(value: str) -> str:
    if not re.match(r"^https?://[^/\s]+", value):
        raise ValueError("expected an http(s) URL such as http://127.0.0.1:8000/v1")
    return value.rstrip("/")


_Http = Annotated[str, AfterValidator(_http)]


class UpstreamSettings(Section):
    """Where a chat or embedding release is answered: exactly one of `engine`, `url`, `provider`, `local`."""

    engine: str | None = None
    """Name of an entry under `engines`."""
    url: _Http | None = None
    """Base URL of an OpenAI-compatible server, with `/v1`, for example `http://gpu1:8000/v1`."""
    provider: str | None = None
    """A model in litellm's spelling, such as `anthropic/claude-sonnet-4-5`; needs the extra `providers`."""
    local: Literal["all-minilm-l6-v2"] | None = None
    """A sentence-transformers model that runs in the gateway's process (embedding models only)."""
    model: str | None = None
    """The upstream's own name of the model, where it differs from the public one."""
    api_base: _Http | None = None
    """With `provider`: another base URL than the provider's own."""
    api_key: SecretStr | None = None
    """The upstream's credential. Write it as `${VARIABLE}` and keep the value in the environment."""
    cost_weight: float = Field(1, ge=0)
    """What a request costs you here, compared with the replicas (routing policy `cost`)."""
    tags: tuple[str, ...] = ()
    """What a route may ask for (`routes[].replicas`)."""
    cost: EngineCostSettings | None = None
    """What the time of a server of one's own costs, for each replica; an engine's stands under `engines`."""
    protocol: Literal["openai", "chat", "anthropic"] = "openai"
    """What a `url` speaks. openai: everything that OpenAI does; chat: chat and completions alone, so that
    responses are translated for it; anthropic: Anthropic's messages, which are passed through."""

    @model_validator(mode="after")
    def _one_place(self) -> UpstreamSettings:
        named = [n for n in ("engine", "url", "provider", "local") if getattr(self, n) is not None]
        if len(named) != 1:
            found = " and ".join(named) or "none"
            raise ValueError(f"expected exactly one of engine, url, provider, local; found {found}")
        if self.protocol != "openai" and self.url is None:
            raise ValueError(f"protocol {self.protocol!r} is said of a server; expected it beside url")
        return self


class ReplicaSettings(Section):
    """One more server that answers for the same model."""

    url: _Http
    """Its base URL, as `upstream.url` is written."""
    weight: float = Field(1, gt=0, le=1000)
    """How much it can take, compared with the others."""
    api_key: SecretStr | None = None
    """Its credential. Write it as `${VARIABLE}`."""
    model: str | None = None
    """Its own name of the model, where it differs from the first upstream's."""
    cost_weight: float = Field(1, ge=0)
    """What a request costs you here, compared with the others (routing policy `cost`). Callers pay the
    model's `price`, whichever replica answers."""
    tags: tuple[str, ...] = ()
    """What a route may ask for (`routes[].replicas`)."""


class _Model(Section):
    policy: str | None = None
    """Name of an entry under `policies`; none means no protection."""
    price: PriceSettings | None = None
    """What callers pay. Without it the model is listed as unpriced and keys with a budget may not call it."""
    candidates: tuple[str, ...] = ()
    """Models of the same kind that answer in this one's name when a request asks for their release by digest
    (header `trilith-release`), and never otherwise: how a release is judged before it has traffic."""
    cache: CacheSettings | None = None
    """Keep answers and give them again to identical requests; none: every request is answered anew."""
    max_concurrency: int | None = Field(None, ge=1)
    """Most calls that one machine's gateway has under way there; further ones wait in a queue that is fair
    between teams. Each of its workers has an equal part, and one at least. None: as many as come."""
    queue_length: int = Field(64, ge=0)
    """Most calls that wait, shared alike; beyond that the team with most of them waiting is told 503."""
    queue_wait_s: float = Field(30, gt=0)
    """Longest wait (seconds); then 503."""


class _Replicated(_Model):
    replicas: tuple[ReplicaSettings, ...] = ()
    """Further servers that answer for it, beside the one of `upstream`."""
    routing: RoutingSettings = RoutingSettings()
    """How one of them is chosen."""


class _Served(_Replicated):
    upstream: UpstreamSettings
    """Where it is answered."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model or only some replicas answer; the first that holds counts."""


class _Replaced(_Model):
    fallbacks: tuple[str, ...] = ()
    """Models of the same kind to ask instead, in this order, when this one does not answer, is overloaded,
    or (chat) refuses the request for its length or its content. The caller pays the price of the one that
    answers."""


class ChatModel(_Served, _Replaced):
    """A language model."""

    kind: Literal[Kind.CHAT]
    """`chat`."""
    cache: AnswerCacheSettings | None = None
    """Keep answers and give them again to identical requests; none: every request is answered anew."""
    cascade: tuple[StepSettings, ...] = ()
    """Models to ask before this one, in this order, about chats; the first good enough answer is the answer.
    Each that was asked is paid at its own price."""
    otherwise: StepSettings | None = None
    """A predictor to ask when neither this model nor a fallback answers."""
    max_output_tokens: int = Field(1024, ge=1)
    """Longest answer when the caller sets no `max_tokens`; also what is reserved from the budget."""
    context_tokens: int | None = Field(None, ge=1)
    """The model's window, for `/v1/models`, and the most that is reserved for what a request refers to; None:
    as the engine says."""
    reference_tokens: int = Field(8192, ge=0)
    """The most that one picture, sound or file comes to (tokens); reserved from the budget for each, and for
    each use of a tool of the provider's own. Raise it for long recordings and files."""
    conversations: bool = False
    """Whether callers may name a `conversation` that the provider keeps (responses only). The gateway cannot
    know whose it is: everyone who may call this model can read what stands in every conversation of the
    upstream's key. To go on from an answer (`previous_response_id`) needs no leave: its team is checked."""


class EmbeddingModel(_Served):
    """A model that turns texts into vectors."""

    kind: Literal[Kind.EMBEDDING]
    """`embedding`."""


class RerankModel(_Served):
    """A model that orders documents by how well they answer a query."""

    kind: Literal[Kind.RERANK]
    """`rerank`."""


class ImageModel(_Served):
    """A model that makes or changes images."""

    kind: Literal[Kind.IMAGE]
    """`image`."""
    reference_tokens: int = Field(8192, ge=0)
    """The most that one picture comes to (tokens), where pictures are priced by them; reserved for each."""


class AudioModel(_Served):
    """A model that speaks, transcribes or translates."""

    kind: Literal[Kind.AUDIO]
    """`audio`."""


class ModerationModel(_Served):
    """A model that says whether a text may be shown."""

    kind: Literal[Kind.MODERATION]
    """`moderation`."""


class RagModel(_Model):
    """Answers questions from an index, with citations."""

    kind: Literal[Kind.RAG]
    """`rag`."""
    cache: AnswerCacheSettings | None = None
    """Keep answers and give them again to identical requests; none: every request is answered anew."""
    index: str
    """Name of an entry under `indexes`."""
    generator: str
    """Name of the chat model that writes the answer."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model answers; the first that holds counts."""
    top_k: int = Field(4, ge=1, le=50)
    """How many passages the generator reads."""
    max_output_tokens: int = Field(256, ge=1)
    """Longest answer when the caller sets no `max_tokens`."""


class FeatureSettings(Section):
    """Columns that a predictor looks up by entity when a call does not send them."""

    view: str
    """Which set of features in `<home>/features.db`."""
    entity: str = "entity"
    """The input (BYTES) that names each row's entity."""


class PredictorModel(_Replicated, _Replaced):
    """A classical model: a registered one, served from ONNX in this process, or one behind another server."""

    kind: Literal[Kind.PREDICTOR]
    """`predictor`."""
    registered_model: str = ""
    """Its name in the registry."""
    alias: str = "champion"
    """Which registered version answers; when it is moved, the gateway follows without a failed request."""
    versions: tuple[str, ...] = ()
    """Further registered versions to keep in memory, for `/v2/models/NAME/versions/VERSION`."""
    upstream: UpstreamSettings | None = None
    """Instead of a registered model: `url` of a server that speaks the Open Inference Protocol (v2)."""
    threads: int = Field(1, ge=1, le=64)
    """Threads of one run; more than one helps only large batches."""
    max_batch_rows: int = Field(256, ge=1)
    """Most rows of calls that are run together; 1: calls are never joined."""
    max_batch_wait_ms: float = Field(0, ge=0, le=1000)
    """How long a call to an idle model waits for others to join it (milliseconds)."""
    alias_poll_s: float = Field(2, ge=0)
    """How often to look where the alias points (seconds); 0: only when the gateway starts."""
    features: FeatureSettings | None = None
    """Columns to look up by entity; none: every call sends all."""
    control: bool = False
    """Let every key that may call the model also load and unload it (`/v2/repository/models/NAME/load`)."""

    @model_validator(mode="after")
    def _one_source(self) -> PredictorModel:
        if bool(self.registered_model) == (self.upstream is not None):
            found = "both" if self.registered_model else "neither"
            raise ValueError(f"expected either registered_model or upstream; found {found}")
        if self.upstream is not None and self.upstream.url is None:
            raise ValueError("a predictor's upstream is a server; expected upstream.url")
        if self.replicas and self.upstream is None:
            raise ValueError("a registered model has no replicas; expected upstream.url beside them")
        return self


ServedModel = ChatModel | EmbeddingModel | RerankModel | ImageModel | AudioModel | ModerationModel
"""Models that one upstream answers, or several equal ones."""
ReplicatedModel = ServedModel | PredictorModel
"""The same, and predictors, which may also be answered in the gateway's process."""
ModelSettings = Annotated[
    ChatModel
    | EmbeddingModel
    | RerankModel
    | RagModel
    | PredictorModel
    | ImageModel
    | AudioModel
    | ModerationModel,
    Field(discriminator="kind"),
]
