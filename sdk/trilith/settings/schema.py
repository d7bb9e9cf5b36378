"""Every setting, its type, its default and its meaning: the one table that all else is made from.

The reference page, the JSON schema and the environment variables' names derive from these classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from trilith.errors import TrilithError
from trilith.money import Price, pico_usd
from trilith.settings.route import route_faults
from trilith.settings.routing import RouteSettings, RoutingSettings, StepSettings
from trilith.settings.section import Section
from trilith.types import Kind

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
"""A public name: letters, digits, `. _ / -`, at most 128 characters."""

_MTOK = 1_000_000
_KROW = 1_000
_PER = {
    "input_usd_per_mtok": _MTOK,
    "output_usd_per_mtok": _MTOK,
    "cached_input_usd_per_mtok": _MTOK,
    "cache_write_usd_per_mtok": _MTOK,
    "cache_write_1h_usd_per_mtok": _MTOK,
    "reasoning_usd_per_mtok": _MTOK,
    "audio_input_usd_per_mtok": _MTOK,
    "audio_output_usd_per_mtok": _MTOK,
    "image_input_usd_per_mtok": _MTOK,
    "usd_per_krow": _KROW,
    "usd_per_mchar": _MTOK,
}
_RATES = {
    "input_usd_per_mtok": "input_token",
    "output_usd_per_mtok": "output_token",
    "cached_input_usd_per_mtok": "cached_input_token",
    "cache_write_usd_per_mtok": "cache_write_token",
    "cache_write_1h_usd_per_mtok": "cache_write_1h_token",
    "reasoning_usd_per_mtok": "reasoning_token",
    "audio_input_usd_per_mtok": "audio_input_token",
    "audio_output_usd_per_mtok": "audio_output_token",
    "image_input_usd_per_mtok": "image_input_token",
    "usd_per_krow": "row",
    "usd_per_request": "request",
    "usd_per_image": "image",
    "usd_per_audio_s": "second",
    "usd_per_mchar": "character",
    "usd_per_search": "search",
    "usd_per_cpu_hour": "cpu_hour",
}
"""Settings of a price, and the rates of `Price` that they are."""


class GatewaySettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024)
    """Largest request body that is read (bytes)."""
    request_timeout_s: float = Field(600, gt=0)
    """Longest time that one request may take (seconds)."""
    drain_s: float = Field(20, ge=0)
    """How long a stopping gateway lets open answers finish (seconds)."""
    drain_notice_s: float = Field(0, ge=0, le=300)
    """How long a stopping gateway still takes requests while `/readyz` already says no (seconds); on
    Kubernetes a little more than the readiness probe's period."""
    head_timeout_s: float = Field(10, gt=0)
    """How long a caller may take to send a request's head (seconds)."""
    body_timeout_s: float = Field(60, gt=0)
    """How long a caller may take to send a request's body (seconds)."""
    keep_alive_s: float = Field(75, gt=0)
    """How long an idle connection is kept (seconds)."""
    log: Literal["text", "json"] = "text"
    """How the log is written to standard error: plain text, or JSON lines without content or secrets."""
    cache_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Most memory for kept answers, in each worker (bytes). With `store.redis_url`: what teams' shares are
    counted from; how much Redis takes in all is its own `maxmemory`."""
    cache_team_share: float = Field(0.5, gt=0, le=1)
    """Most of `cache_bytes` that one team's answers may take, so that no team drives out all others."""
    half_close: bool = False
    """Answer callers who have closed their sending side. Off: they are gone, and their work is stopped."""


class TelemetrySettings(Section):
    """Traces and metrics."""

    store_spans: bool = True
    """Keep finished spans in `<home>/traces.db`, for `trilith traces`."""
    otlp_endpoint: str | None = None
    """Also send spans to this OTLP/HTTP collector, for example `http://127.0.0.1:4318/v1/traces`."""
    content: bool = False
    """Record prompts and answers on spans. Off: no text of a caller is ever recorded."""


class StoreSettings(Section):
    """Where keys, ledger, audit and leases are kept."""

    url: str | None = Field(None, pattern=r"^postgres(ql)?://")
    """PostgreSQL (`postgresql://user:password@host/name`); none keeps everything in SQLite in `home`."""
    durability: Literal["strict", "batched"] = "batched"
    """`batched` survives the death of a process, `strict` of the machine: every charge waits for the disk."""
    redis_url: SecretStr | None = None
    """Redis or Valkey (`redis://host:6379/0`): rate limits and cached answers that several machines share.
    None: each machine has its own."""
    redis_away: Literal["open", "closed"] = "open"
    """When Redis does not answer: `open` keeps rate limits on each machine alone, `closed` refuses requests
    of keys that have limits with 503."""


class EngineCostSettings(Section):
    """What an own server costs. Its time is booked by windows: the calls' charges, and the rest as idle."""

    usd_per_hour: Decimal = Field(ge=0)
    """Price of an hour of one replica, in US dollars, busy or not."""
    units_per_second: float | None = Field(None, gt=0)
    """Units of work that a replica does in a second when fully busy; `trilith costs fit` measures it. With
    it, models without a `price` are charged by work at the standard rate."""
    target_utilisation: Decimal = Field(Decimal("0.6"), gt=0, le=1)
    """How busy the server is meant to be; the standard rate covers its cost when it is."""
    input_weight: Decimal = Field(Decimal(1), ge=0)
    """Units of work of an input token that was computed."""
    cached_input_weight: Decimal = Field(Decimal("0.1"), ge=0)
    """Units of work of an input token that was served from the prefix cache."""
    output_weight: Decimal = Field(Decimal(4), ge=0)
    """Units of work of an output token."""
    window_s: int = Field(300, ge=10, le=86400)
    """Length of a window (seconds)."""


class EngineSettings(Section):
    """A local vLLM that `trilith up` starts and keeps alive."""

    engine: Literal["vllm"] = "vllm"
    """Which engine."""
    model: str = "smollm2-135m-instruct"
    """`smollm2-135m-instruct` (comes inside a package, no model hub needed), a folder, or a hub id."""
    port: int = Field(8100, ge=1, le=65535)
    """Port on 127.0.0.1."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto takes float32 on processors without bfloat16 instructions."""
    max_model_len: int = Field(2048, ge=128)
    """Longest sequence, prompt and answer together (tokens)."""
    kv_cache_gib: float = Field(1, gt=0)
    """Memory for the key-value cache on CPU (GiB)."""
    args: tuple[str, ...] = ()
    """Further arguments for vLLM's server, as on its command line."""
    ready_timeout_s: float = Field(600, gt=0)
    """How long a start may take before it counts as failed (seconds)."""
    cost: EngineCostSettings | None = None
    """What its time costs; none: it is not booked."""


class PiiSettings(Section):
    """What a policy does about personal data."""

    action: Literal["mask", "block", "allow"] = "mask"
    """mask: the model sees placeholders and the caller the originals; block: refuse; allow: do not look."""
    entities: tuple[str, ...] = ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD")
    """Which kinds, by Presidio's names."""
    block_entities: tuple[str, ...] = ()
    """Kinds that refuse the request whatever `action` says."""
    min_score: float = Field(0.4, ge=0, le=1)
    """Findings below this confidence are ignored."""
    on_error: Literal["closed", "open"] = "closed"
    """When detection itself fails: closed refuses the request, open lets it pass. Both are audited."""


class PolicySettings(Section):
    """A named governance rule; models point at it."""

    pii: PiiSettings = PiiSettings()
    """Personal data."""


class PriceSettings(Section):
    """What a call costs, in decimal US dollars. At most 6 decimals per Mtok, 9 per krow, 12 otherwise."""

    book: str | None = None
    """Take this model's price from the price book, as `provider/model` (`trilith prices list`). Rates given
    beside it replace the book's, in every tier and at every size."""
    input_usd_per_mtok: Decimal = Decimal(0)
    """Per million input tokens."""
    output_usd_per_mtok: Decimal = Decimal(0)
    """Per million output tokens, reasoning included."""
    cached_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens that were served from a prefix cache; without it they cost as the others."""
    cache_write_usd_per_mtok: Decimal | None = None
    """Per million input tokens that were written to a prefix cache; without it they cost as the others."""
    cache_write_1h_usd_per_mtok: Decimal | None = None
    """Per million of those that are kept there for an hour; without it they cost as those that are not."""
    reasoning_usd_per_mtok: Decimal | None = None
    """Per million reasoning tokens; without it they cost as other output."""
    audio_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens of sound; without it they cost as the others."""
    audio_output_usd_per_mtok: Decimal | None = None
    """Per million output tokens of sound; without it they cost as the others."""
    image_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens of images; without it they cost as the others."""
    usd_per_krow: Decimal = Decimal(0)
    """Per thousand rows scored."""
    usd_per_request: Decimal = Decimal(0)
    """Per request that was answered."""
    usd_per_image: Decimal = Decimal(0)
    """Per image made."""
    usd_per_audio_s: Decimal = Decimal(0)
    """Per second of audio that was heard (transcribed or translated), begun ones counted."""
    usd_per_mchar: Decimal = Decimal(0)
    """Per million characters that were spoken."""
    usd_per_search: Decimal | None = None
    """Per search of the web that the provider reports; without it a call with searches is unpriced."""
    usd_per_cpu_hour: Decimal = Decimal(0)
    """Per hour of CPU time that a predictor was measured to take, down to the nanosecond."""
    batch_factor: Decimal | None = None
    """By what every rate is multiplied for lines of batches, and for answers that name the service tier
    `batch`; `0.5` is half the price. Without it lines of batches cost as single calls. Answers in a tier
    with a price neither here nor in the book are unpriced."""
    flex_factor: Decimal | None = None
    """The same for the tier `flex`."""
    priority_factor: Decimal | None = None
    """The same for the tier `priority`."""

    @field_validator("*")
    @classmethod
    def _whole_pico(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Decimal):
            return value
        per = _PER.get(info.field_name or "", 1)
        try:
            pico_usd(value or 0, per=per)
        except (ValueError, ArithmeticError):
            places = 12 - (len(str(per)) - 1)
            raise ValueError(f"expected a decimal number >= 0 with at most {places} decimals") from None
        return value

    @model_validator(mode="after")
    def _known(self) -> PriceSettings:
        try:
            self.exact()
        except TrilithError as error:
            raise ValueError(str(error)) from None
        return self

    def exact(self) -> Price:
        """Return the same price in integer pico-USD per unit.

        Raises:
            DataError: the price book does not have the model that is named.
            ValueError: a tier's rate is no whole number of pico-USD.
        """
        rates: dict[str, Any] = {}
        for name, rate in _RATES.items():
            value = getattr(self, name)
            if self.book is None or name in self.model_fields_set:
                per = _PER.get(name, 1)
                rates[rate] = None if value is None else pico_usd(value, per=per, what=name)
        if self.book is None:
            price = Price(**rates)
        else:
            from trilith.prices import load

            price = load().price(self.book).with_rates(rates)
        factors = {name: getattr(self, f"{name}_factor") for name in ("batch", "flex", "priority")}
        tiers = {name: price.times(factor) for name, factor in factors.items() if factor is not None}
        return replace(price, tiers={**price.tiers, **tiers}) if tiers else price

    def for_batches(self) -> Price:
        """Return what a line of a batch costs, in integer pico-USD per unit."""
        price = self.exact()
        return price.tiers.get("batch", price)


class UpstreamSettings(Section):
    """Where a chat or embedding release is answered: exactly one of `engine`, `url`, `provider`, `local`."""

    engine: str | None = None
    """Name of an entry under `engines`."""
    url: str | None = None
    """Base URL of an OpenAI-compatible server, with `/v1`, for example `http://gpu1:8000/v1`."""
    provider: str | None = None
    """A model in litellm's spelling, such as `anthropic/claude-sonnet-4-5`; needs the extra `providers`."""
    local: Literal["all-minilm-l6-v2"] | None = None
    """A sentence-transformers model that runs in the gateway's process (embedding models only)."""
    model: str | None = None
    """The upstream's own name of the model, where it differs from the public one."""
    api_base: str | None = None
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

    @field_validator("url", "api_base")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"^https?://[^/\s]+", value):
            raise ValueError("expected an http(s) URL such as http://127.0.0.1:8000/v1")
        return value.rstrip("/") if value else value


class ReplicaSettings(Section):
    """One more server that answers for the same model."""

    url: str
    """Its base URL, with `/v1`."""
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

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not re.match(r"^https?://[^/\s]+", value):
            raise ValueError("expected an http(s) URL such as http://127.0.0.1:8000/v1")
        return value.rstrip("/")


class SemanticCacheSettings(Section):
    """Answers to questions that mean the same, though they are worded differently."""

    threshold: float = Field(0.9, ge=0.5, le=1)
    """Least cosine similarity of two questions. A guard then also wants their numbers, dates, names,
    negations, quotations and weighty words to agree."""
    wait_ms: float = Field(50, gt=0, le=5000)
    """Longest time that a question waits for this look-up before the model is asked (milliseconds)."""
    qdrant_url: str | None = None
    """A Qdrant server that all workers and machines share; none: the Rust engine in each worker."""
    qdrant_api_key: SecretStr | None = None
    """The server's credential. Write it as `${VARIABLE}`."""


class CacheSettings(Section):
    """Answers that are kept for identical requests of one team, in memory or in `store.redis_url`."""

    ttl_s: float = Field(300, ge=0)
    """How long an answer is kept (seconds); 0: not at all, identical calls under way are still joined."""
    only_deterministic: bool = True
    """Keep only answers that would be the same again (`temperature: 0`, a `seed`, embeddings, predictors) and
    those that a caller asks for with `cache-control: max-age=...`. Off: every answer is kept."""
    single_flight: bool = True
    """Let identical deterministic calls of one team that are under way at once share one of the model."""


class AnswerCacheSettings(CacheSettings):
    """The same for models that answer in words."""

    semantic: SemanticCacheSettings | None = None
    """Also answer questions that only mean the same; none: never."""


class _Model(Section):
    policy: str | None = None
    """Name of an entry under `policies`; none means no protection."""
    price: PriceSettings | None = None
    """What callers pay. Without it the model is listed as unpriced and keys with a budget may not call it."""
    cache: CacheSettings | None = None
    """Keep answers and give them again to identical requests; none: every request is answered anew."""
    max_concurrency: int | None = Field(None, ge=1)
    """Most calls that one worker process has under way there; further ones wait in a queue that is fair
    between teams. None: as many as come."""
    queue_length: int = Field(64, ge=0)
    """Most calls that wait; beyond that the team with most of them waiting is told 503."""
    queue_wait_s: float = Field(30, gt=0)
    """Longest wait (seconds); then 503."""


class ChatModel(_Model):
    """A language model."""

    kind: Literal[Kind.CHAT]
    """`chat`."""
    cache: AnswerCacheSettings | None = None
    """Keep answers and give them again to identical requests; none: every request is answered anew."""
    upstream: UpstreamSettings
    """Where it is answered."""
    replicas: tuple[ReplicaSettings, ...] = ()
    """Further servers that answer for it, beside `upstream.url` or `upstream.engine`."""
    routing: RoutingSettings = RoutingSettings()
    """How one of them is chosen."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model or only some replicas answer; the first that holds counts."""
    cascade: tuple[StepSettings, ...] = ()
    """Models to ask before this one, in this order, about chats; the first good enough answer is the answer.
    Each that was asked is paid at its own price."""
    otherwise: StepSettings | None = None
    """A predictor to ask when neither this model nor a fallback answers."""
    fallbacks: tuple[str, ...] = ()
    """Chat models to ask instead, in this order, when this one does not answer, is overloaded, or refuses the
    request for its length or its content. The caller pays the price of the one that answers."""
    max_output_tokens: int = Field(1024, ge=1)
    """Longest answer when the caller sets no `max_tokens`; also what is reserved from the budget."""
    context_tokens: int | None = Field(None, ge=1)
    """The model's window, for `/v1/models`; None: as the engine says."""


class EmbeddingModel(_Model):
    """A model that turns texts into vectors."""

    kind: Literal[Kind.EMBEDDING]
    """`embedding`."""
    upstream: UpstreamSettings
    """Where it is answered."""
    replicas: tuple[ReplicaSettings, ...] = ()
    """Further servers that answer for it, beside `upstream.url`."""
    routing: RoutingSettings = RoutingSettings()
    """How one of them is chosen."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model or only some replicas answer; the first that holds counts."""


class _Served(_Model):
    upstream: UpstreamSettings
    """Where it is answered."""
    replicas: tuple[ReplicaSettings, ...] = ()
    """Further servers that answer for it, beside `upstream.url`."""
    routing: RoutingSettings = RoutingSettings()
    """How one of them is chosen."""
    routes: tuple[RouteSettings, ...] = ()
    """Conditions under which another model or only some replicas answer; the first that holds counts."""


class RerankModel(_Served):
    """A model that orders documents by how well they answer a query."""

    kind: Literal[Kind.RERANK]
    """`rerank`."""


class ImageModel(_Served):
    """A model that makes or changes images."""

    kind: Literal[Kind.IMAGE]
    """`image`."""


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


class PredictorModel(_Model):
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
        return self


ServedModel = ChatModel | EmbeddingModel | RerankModel | ImageModel | AudioModel | ModerationModel
"""Models that one upstream answers, or several equal ones."""
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


class BatchSettings(Section):
    """Files that callers upload, and the batches that are made of them."""

    max_file_bytes: int = Field(100 * 1024 * 1024, ge=1024)
    """Largest file that is taken (bytes)."""
    team_bytes: int = Field(1024 * 1024 * 1024, ge=1024)
    """Most that one team's files may come to (bytes)."""
    keep_days: float = Field(30, gt=0)
    """How long a file is kept when its owner does not say (days)."""
    max_lines: int = Field(50_000, ge=1)
    """Most requests of one batch."""
    concurrency: int = Field(4, ge=1, le=256)
    """How many lines of one batch are under way at once."""
    yield_above: int = Field(16, ge=1)
    """With so many other requests open in this process, batches wait."""


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


class ReferenceFaults(ValueError):
    """Sections name entries that are not there; `faults` lists the key's path and what is wrong with it."""

    def __init__(self, faults: list[tuple[tuple[str, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(path)}: {message}" for path, message in faults))
        self.faults = faults


def reference_faults(tree: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """List what is wrong between sections: names that nothing declares, ports that two engines share.

    Works on a plain tree that need not have passed any other check, so that a reader of a wrong file
    hears of everything at once.

    Returns:
        The key's path and the message, for each fault.
    """
    models = _entries(tree, "models")
    chats = {name: model for name, model in models.items() if model.get("kind") == Kind.CHAT}
    faults: list[tuple[tuple[str, ...], str]] = []

    def check(path: tuple[str, ...], value: object, what: str, table: Mapping[str, object]) -> None:
        if isinstance(value, str) and value not in table:
            names = ", ".join(sorted(table)) or "none is declared"
            faults.append((path, f"found {value!r}, expected one of the {what} ({names})"))

    for name, model in models.items():
        at = ("models", name)
        upstream = model.get("upstream")
        upstream = upstream if isinstance(upstream, Mapping) else {}
        check((*at, "policy"), model.get("policy"), "policies", _entries(tree, "policies"))
        check((*at, "upstream", "engine"), upstream.get("engine"), "engines", _entries(tree, "engines"))
        kind = model.get("kind")
        if upstream.get("local") is not None and kind not in (Kind.EMBEDDING, Kind.RERANK):
            message = "local models only embed and rerank; expected engine, url or provider"
            faults.append(((*at, "upstream", "local"), message))
        if upstream.get("provider") is not None and kind not in (Kind.CHAT, Kind.EMBEDDING):
            message = "providers only chat and embed here; expected url"
            faults.append(((*at, "upstream", "provider"), message))
        if upstream.get("protocol", "openai") != "openai" and kind != Kind.CHAT:
            message = "only chat models have another protocol; expected openai"
            faults.append(((*at, "upstream", "protocol"), message))
        for number, other in enumerate(model.get("fallbacks") or ()):
            check((*at, "fallbacks", str(number)), other, "chat models", chats)
        if model.get("kind") == Kind.RAG:
            check((*at, "index"), model.get("index"), "indexes", _entries(tree, "indexes"))
            check((*at, "generator"), model.get("generator"), "chat models", chats)
    faults += route_faults(models)
    return faults + _shared_ports(_entries(tree, "engines"))


def _shared_ports(engines: Mapping[str, Mapping[str, Any]]) -> list[tuple[tuple[str, ...], str]]:
    default = EngineSettings.model_fields["port"].default
    first: dict[str, str] = {}
    faults: list[tuple[tuple[str, ...], str]] = []
    for name, engine in engines.items():
        port = str(engine.get("port", default))
        if port in first:
            message = f"found {port}, which engines.{first[port]} has; expected a port of its own"
            faults.append((("engines", name, "port"), message))
        first.setdefault(port, name)
    return faults


def _entries(tree: Mapping[str, Any], section: str) -> dict[str, Mapping[str, Any]]:
    entries = tree.get(section)
    if not isinstance(entries, Mapping):
        return {}
    return {name: entry if isinstance(entry, Mapping) else {} for name, entry in entries.items()}
