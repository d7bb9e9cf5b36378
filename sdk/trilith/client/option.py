"""The optional arguments of calls, typed and described once for both clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class CallOptions(TypedDict, total=False):
    """What every call accepts."""

    extra_headers: Mapping[str, str] | None
    """Added to the request; these win over the client's own."""
    extra_body: Mapping[str, Any] | None
    """Fields added to the JSON body as they are, for what a server knows beyond OpenAI's (`top_k`)."""
    timeout_s: float | None
    """In place of the client's `timeout_s`, for this call (seconds)."""
    idempotency_key: str | None
    """Sent with every try of this call; made up when None."""


class ChatOptions(CallOptions, total=False):
    """What a chat accepts, in OpenAI's words. None means: as if it was not given."""

    frequency_penalty: float | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    max_tokens: int | None
    """Longest answer (tokens)."""
    metadata: Mapping[str, str] | None
    n: int | None
    """How many answers."""
    parallel_tool_calls: bool | None
    presence_penalty: float | None
    reasoning_effort: str | None
    response_format: Mapping[str, Any] | None
    """For example `{"type": "json_schema", "json_schema": {...}}`."""
    seed: int | None
    service_tier: str | None
    stop: str | Sequence[str] | None
    stream_options: Mapping[str, Any] | None
    """`{"include_usage": True}` adds a last chunk that carries the usage."""
    temperature: float | None
    tool_choice: str | Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    top_logprobs: int | None
    top_p: float | None
    user: str | None


class EmbeddingOptions(CallOptions, total=False):
    """What an embedding accepts, in OpenAI's words."""

    dimensions: int | None
    """Length of the vectors, where the model lets one choose."""
    user: str | None


CALL_OPTIONS = frozenset(CallOptions.__annotations__)

Role = Literal["system", "developer", "user", "assistant", "tool"]
"""Who speaks."""
