"""Which fields of a caller's request litellm may see.

litellm takes its own switches (addresses, credentials, headers, prices, made-up answers, other models) as
arguments beside OpenAI's, so a field goes on only when it is named here; any other is refused, never dropped.
litellm's `extra_body` is no way round: adapters read credentials and addresses out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CHAT = frozenset(
    {
        "model", "messages", "stream", "stream_options", "temperature", "top_p", "n", "stop", "seed",
        "max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "logit_bias",
        "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
        "functions", "function_call", "modalities", "prediction", "audio", "user", "reasoning_effort",
        "verbosity", "safety_identifier", "service_tier", "store", "prompt_cache_key", "web_search_options",
        # Providers' own, which only shape the answer:
        "thinking", "top_k", "min_p", "repetition_penalty", "safety_settings",
    }
)  # fmt: skip
"""What a chat may hold."""

EMBEDDINGS = frozenset({"model", "input", "dimensions", "encoding_format", "user", "input_type"})
"""What a request for embeddings may hold."""

_FETCHING = frozenset({"gigachat"})
"""Adapters that fetch addresses of a message with a client of their own, past litellm's one check."""


_NAMING = frozenset({"image_url", "url", "file_id", "file_data"})
"""Keys in messages whose values may be addresses."""


class NotPassedOn(ValueError):
    """A field of the request that goes to no provider."""

    def __init__(self, param: str, reason: str) -> None:
        """Take the field's name and the sentence that says why."""
        super().__init__(reason)
        self.param = param


def check(body: Mapping[str, Any], allowed: frozenset[str], provider: str) -> None:
    """Refuse a request that could steer litellm.

    Raises:
        NotPassedOn: a field that is not allowed, a tool that litellm would run itself, or an address that it
            would fetch itself.
    """
    for name in body:
        if name not in allowed:
            raise NotPassedOn(
                name,
                f"`{name[:80]}` is not passed on to a provider behind litellm. Leave it out; "
                f"the fields that are: {', '.join(sorted(allowed))}.",
            )
    for tool in body.get("tools") or ():
        if isinstance(tool, dict) and tool.get("type") == "mcp":
            raise NotPassedOn(
                "tools", "Tools of type `mcp` are not passed on to a provider behind litellm; use functions."
            )
    if provider.partition("/")[0] in _FETCHING and any(_addresses(body.get("messages"))):
        raise NotPassedOn(
            "messages", "This provider takes no addresses of images and files; send them as data URLs."
        )


def _addresses(value: object, key: str = "") -> Iterator[str]:
    """Yield the addresses in messages; texts may speak of addresses."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _addresses(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _addresses(inner, key)
    elif key in _NAMING and isinstance(value, str) and not value.startswith("data:"):
        yield value
