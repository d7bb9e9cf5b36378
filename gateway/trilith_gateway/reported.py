"""Reads usage in the shapes that protocols other than chat report it in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trilith.types import NO_PARTICULARS, Usage
from trilith_gateway.usage import read_message_usage, read_usage

Body = dict[str, Any]


def message_usage(answer: Body) -> Usage | None:
    """Read usage as Anthropic counts it, from a whole message or from one event of a stream."""
    return read_message_usage((answer.get("message") or answer).get("usage"))


def larger(one: Usage, other: Usage) -> Usage:
    """Put together reports that each repeat, or raise, what the ones before them said."""
    told, said = one.particulars, other.particulars
    counts = {
        name: max(getattr(told, name), getattr(said, name)) for name in told.__slots__ if name != "tier"
    }
    numbers = {
        name: max(getattr(one, name), getattr(other, name))
        for name in Usage.__slots__
        if name != "particulars"
    }
    particulars = replace(said, **counts, tier=said.tier or told.tier)
    return Usage(**numbers, particulars=NO_PARTICULARS if particulars == NO_PARTICULARS else particulars)


def added(one: Usage, other: Usage) -> Usage:
    """Put together reports that each tell of a part of one request."""
    return replace(one + other, requests=1)


def rerank_usage(answer: Body) -> Usage | None:
    """Read a rerank's usage, of which some servers tell the total alone."""
    told = answer.get("usage")
    if not isinstance(told, dict):
        return None
    return read_usage({"prompt_tokens": told.get("prompt_tokens") or told.get("total_tokens")})
