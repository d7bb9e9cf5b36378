"""Settings of kept answers."""

from __future__ import annotations

from pydantic import Field, SecretStr

from trilith.settings.section import Section


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
