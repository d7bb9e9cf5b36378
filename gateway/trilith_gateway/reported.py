"""Reads usage in the shapes that protocols other than chat report it in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trilith.types import Usage
from trilith_gateway.usage import read_usage

Body = dict[str, Any]


def message_usage(answer: Body) -> Usage | None:
    """Read usage as Anthropic counts it: cached tokens stand beside the others, not among them."""
    told = (answer.get("message") or answer).get("usage")
    if not isinstance(told, dict):
        return None
    read, made = (told.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
    return read_usage(
        {
            "prompt_tokens": (told.get("input_tokens") or 0) + read + made,
            "completion_tokens": told.get("output_tokens"),
            "prompt_tokens_details": {"cached_tokens": read},
        }
    )


def larger(one: Usage, other: Usage) -> Usage:
    """Put together reports that each repeat, or raise, what the ones before them said."""
    return Usage(*(max(getattr(one, name), getattr(other, name)) for name in Usage.__slots__))


def added(one: Usage, other: Usage) -> Usage:
    """Put together reports that each tell of a part of one request."""
    return replace(one + other, requests=1)


def rerank_usage(answer: Body) -> Usage | None:
    """Read a rerank's usage, of which some servers tell the total alone."""
    told = answer.get("usage")
    if not isinstance(told, dict):
        return None
    return read_usage({"prompt_tokens": told.get("prompt_tokens") or told.get("total_tokens")})
