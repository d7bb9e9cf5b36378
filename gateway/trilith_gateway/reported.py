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


def response_usage(answer: Body) -> Usage | None:
    """Read a response's usage, from the whole or from the last event of a stream.

    Searches of the web stand among what it put out, and not in its usage; a page that is opened is none.
    """
    if isinstance(whole := answer.get("response"), dict):
        answer = whole
    told = answer.get("usage")
    if not isinstance(told, dict):
        return None
    found = read_usage(
        {
            "prompt_tokens": told.get("input_tokens"),
            "completion_tokens": told.get("output_tokens"),
            "prompt_tokens_details": told.get("input_tokens_details"),
            "completion_tokens_details": told.get("output_tokens_details"),
        },
        answer.get("service_tier"),
    )
    output = answer.get("output")
    searches = sum(map(_searched, output)) if isinstance(output, list) else 0
    if found is None or not searches:
        return found
    return replace(found, particulars=replace(found.particulars, searches=searches))


def _searched(item: object) -> bool:
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type", "search") == "search"


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
