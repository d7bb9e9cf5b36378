"""Reads what a call used from an upstream's answer, whichever dialect it speaks."""

from __future__ import annotations

from typing import Any

from trilith.types import Usage


def read_usage(reported: object) -> Usage | None:
    """Return the usage in OpenAI's `usage` object (or `{"rows": n}`); None when there is none in it.

    OpenAI and vLLM count cached tokens within the prompt's and reasoning tokens within the completion's.
    A cached count above the prompt's (seen from proxies) is cut to it.
    """
    if not isinstance(reported, dict):
        return None
    if "rows" in reported:
        return Usage(rows=_whole(reported["rows"]))
    if not ("prompt_tokens" in reported or "completion_tokens" in reported or "total_tokens" in reported):
        return None
    tokens = _whole(reported.get("prompt_tokens"))
    if not ("prompt_tokens_details" in reported or "completion_tokens_details" in reported):
        return Usage(tokens, _whole(reported.get("completion_tokens")))
    return Usage(
        input_tokens=tokens,
        output_tokens=_whole(reported.get("completion_tokens")),
        cached_input_tokens=min(tokens, _whole(_detail(reported, "prompt_tokens_details", "cached_tokens"))),
        reasoning_tokens=_whole(_detail(reported, "completion_tokens_details", "reasoning_tokens")),
    )


def estimate(sent_bytes: int, received_bytes: int) -> Usage:
    """Return an upper estimate for an answer without usage: three bytes a token, rounded up."""
    return Usage(input_tokens=-(-sent_bytes // 3), output_tokens=-(-received_bytes // 3))


def _detail(reported: dict[str, Any], group: str, name: str) -> object:
    details = reported.get(group)
    return details.get(name) if isinstance(details, dict) else None


def _whole(value: object) -> int:
    if type(value) is int:
        return value if value > 0 else 0
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
