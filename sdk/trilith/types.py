"""The values that every part of Trilith passes around. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None
"""A decoded JSON value."""


class Kind(StrEnum):
    """What a model is, and with that which protocol its callers speak."""

    CHAT = "chat"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    RAG = "rag"
    PREDICTOR = "predictor"
    IMAGE = "image"
    AUDIO = "audio"
    MODERATION = "moderation"


@dataclass(frozen=True, slots=True)
class Particulars:
    """What few calls use: parts of their tokens that have prices of their own, and other units."""

    cache_write_tokens: int = 0
    """Written to a prefix cache that keeps them for minutes; part of the input tokens."""
    cache_write_1h_tokens: int = 0
    """Written to one that keeps them for an hour; part of the input tokens."""
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    searches: int = 0
    """Searches of the web that the provider made for the answer."""
    cpu_ns: int = 0
    """CPU time of a predictor (nanoseconds)."""
    tier: str = ""
    """The service tier that answered: `batch`, `flex`, `priority`, ...; empty for the standard one."""

    def __post_init__(self) -> None:
        if min(self.counts()) < 0:
            raise ValueError(f"{self} has a number below zero")

    def counts(self) -> tuple[int, ...]:
        """Return everything but the tier."""
        return tuple(getattr(self, name) for name in self.__slots__[:-1])

    def __add__(self, other: Particulars) -> Particulars:
        names = self.__slots__[:-1]
        summed: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Particulars(**summed, tier=self.tier if self.tier == other.tier else "")


NO_PARTICULARS = Particulars()
"""Nothing of that kind, as of most calls."""


@dataclass(slots=True, unsafe_hash=True)
class Usage:
    """What one call used, in the units that prices are quoted in; a value, never changed once it is made.

    It is not frozen, because it is made twice for each request and freezing costs four times as much.

    `input_tokens` includes the cached ones and `output_tokens` the reasoning ones, as OpenAI and the
    OpenTelemetry GenAI conventions count them; adapters of providers that count otherwise normalise.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    rows: int = 0
    """Rows scored, for predictors."""
    requests: int = 1
    images: int = 0
    """Images made."""
    seconds: int = 0
    """Seconds of audio heard, begun ones counted."""
    characters: int = 0
    """Characters spoken."""
    particulars: Particulars = NO_PARTICULARS

    def __post_init__(self) -> None:
        if (
            self.input_tokens < 0
            or self.output_tokens < 0
            or self.cached_input_tokens < 0
            or self.reasoning_tokens < 0
            or self.rows < 0
            or self.requests < 0
            or self.images < 0
            or self.seconds < 0
            or self.characters < 0
        ):
            raise ValueError(f"{self} has a number below zero")
        if self.cached_input_tokens > self.input_tokens:
            raise ValueError("cached_input_tokens exceeds input_tokens, of which it is a part")
        if self.particulars is not NO_PARTICULARS and self.uncached_input_tokens < 0:
            raise ValueError("tokens read from a cache and written to one exceed input_tokens")

    @property
    def uncached_input_tokens(self) -> int:
        """Input tokens that were neither read from a cache nor written to one."""
        written = self.particulars.cache_write_tokens + self.particulars.cache_write_1h_tokens
        return self.input_tokens - self.cached_input_tokens - written

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters `[start, end)` in a document's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Citation:
    """One place in one source document that an answer rests on."""

    number: int
    """The number between brackets in the answer's text, from 1."""
    document_id: str
    path: str
    """Where the document was read from, relative to the index's source folder."""
    start: int
    """First character of the cited passage in the document's extracted text."""
    end: int
    quote: str
    """The cited characters, equal to `text[start:end]` of the document."""
    page: int | None = None
    """Page in a paged document, from 1; None where the format has no pages."""
    title: str = ""
    score: float = 0.0
    """Retrieval score, comparable within one answer only."""
    supported: bool = True
    """Whether the sentence that carries the number shares its content words with the passage."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a `rag` model said, and on what grounds."""

    text: str
    citations: tuple[Citation, ...]
    model: str
    request_id: str
    usage: Usage
    cost_pico_usd: int | None = field(default=None, compare=False)
    """What the gateway charged (10^-12 USD); None where it does not say."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a `predictor` model said about a batch of rows."""

    outputs: Mapping[str, list[Any]]
    """Output name to one value per row (a list per row where the output has columns)."""
    model: str
    version: str
    request_id: str
    cost_pico_usd: int | None = field(default=None, compare=False)
    """What the gateway charged (10^-12 USD); None where it does not say."""

    @property
    def values(self) -> list[Any]:
        """The first output, one value per row."""
        return next(iter(self.outputs.values()))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, text only."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """One source document as read and parsed."""

    id: str
    """Stable across runs: the path relative to the source folder."""
    path: str
    title: str
    text: str
    digest: str
    """sha256 of the file's bytes, hexadecimal."""
    pages: tuple[Span, ...] = ()
    """Where each page lies in `text`; empty where the format has no pages."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document: the unit that is embedded, found and cited."""

    id: str
    """A UUID made from index, document, span and text: the same input gives the same id."""
    document_id: str
    path: str
    title: str
    text: str
    """Equal to `document.text[start:end]`."""
    start: int
    end: int
    page: int | None = None
    heading: str = ""
    """Headings above the passage, outermost first; searched with the text, never shown as part of it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that a query found."""

    chunk: Chunk
    score: float
    """How it ranks among the hits of one query; not comparable between queries."""
    similarity: float = 0.0
    """Cosine of the query's and the chunk's vectors; comparable between queries of one embedder."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a detector saw, without the text that it saw."""

    entity: str
    """For example PERSON, EMAIL_ADDRESS, PHONE_NUMBER, CREDIT_CARD."""
    start: int
    end: int
    score: float


class Verdict(StrEnum):
    """What governance did with one request."""

    ALLOW = "allow"
    MASK = "mask"
    BLOCK = "block"
    ERROR = "error"
    """The detector failed; a policy that fails closed refuses the request."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a classical model in the registry, with what serving needs to load it."""

    name: str
    version: str
    alias: str | None
    path: str
    """Folder with `model.onnx`, `model.skops` and `manifest.json`."""
    digest: str
    """sha256 of `model.onnx`, hexadecimal; checked before the file is loaded."""
