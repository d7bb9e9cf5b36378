"""Reads what a call used from an upstream's answer, whichever dialect it speaks.

Here, and nowhere else, all ways of counting become one: input = uncached + read from a cache + written to it.
OpenAI and vLLM count cached tokens within the prompt's, Anthropic beside them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from trilith.types import NO_PARTICULARS, Particulars, Usage

_STANDARD = frozenset({"", "default", "auto", "standard", "on_demand"})
_TIER = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def read_usage(reported: object, tier: object = None) -> Usage | None:
    """Return the usage in OpenAI's `usage` object (or `{"rows": n}`); None when there is none in it.

    What is a part of something else is cut to it: a cached count above the prompt's was seen from proxies.

    Args:
        reported: The object.
        tier: The `service_tier` beside it.
    """
    if not isinstance(reported, dict):
        return None
    if "rows" in reported:
        cpu_ns = _whole(reported.get("cpu_ns"))
        return Usage(
            rows=_whole(reported["rows"]),
            particulars=Particulars(cpu_ns=cpu_ns) if cpu_ns else NO_PARTICULARS,
        )
    if not ("prompt_tokens" in reported or "completion_tokens" in reported or "total_tokens" in reported):
        return None
    tokens = _whole(reported.get("prompt_tokens"))
    if tier is None and not (
        "prompt_tokens_details" in reported
        or "completion_tokens_details" in reported
        or "cache_creation_input_tokens" in reported
    ):
        return Usage(tokens, _whole(reported.get("completion_tokens")))
    asked, said = _part(reported, "prompt_tokens_details"), _part(reported, "completion_tokens_details")
    output = _whole(reported.get("completion_tokens"))
    cached = min(tokens, _whole(asked.get("cached_tokens")))
    written = asked.get("cache_creation_tokens", reported.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=tokens,
        output_tokens=output,
        cached_input_tokens=cached,
        reasoning_tokens=min(output, _whole(said.get("reasoning_tokens"))),
        particulars=_particulars(
            _whole(written),
            _whole(_part(asked, "cache_creation_token_details").get("ephemeral_1h_input_tokens")),
            tokens - cached,
            output,
            asked,
            said,
            _part(reported, "server_tool_use"),
            tier,
        ),
    )


def read_message_usage(reported: object) -> Usage | None:
    """Return the usage in Anthropic's `usage` object; None when there is none in it."""
    if not isinstance(reported, dict) or not ("input_tokens" in reported or "output_tokens" in reported):
        return None
    cached = _whole(reported.get("cache_read_input_tokens"))
    written = _whole(reported.get("cache_creation_input_tokens"))
    hour = _whole(_part(reported, "cache_creation").get("ephemeral_1h_input_tokens"))
    output = _whole(reported.get("output_tokens"))
    rest = written + _whole(reported.get("input_tokens"))
    tools, tier = _part(reported, "server_tool_use"), reported.get("service_tier")
    return Usage(
        input_tokens=rest + cached,
        output_tokens=output,
        cached_input_tokens=cached,
        particulars=_particulars(written, hour, rest, output, {}, {}, tools, tier),
    )


def _particulars(
    written: int,
    hour: int,
    rest: int,
    output: int,
    asked: dict[str, Any],
    said: dict[str, Any],
    tools: dict[str, Any],
    tier: object,
) -> Particulars:
    """Return the rarer counts; no token is in two of them.

    Args:
        written: Tokens written to a cache.
        hour: Those of them that are kept for an hour.
        rest: Input tokens that were not read from a cache.
        output: Output tokens.
        asked: OpenAI's details of the input.
        said: OpenAI's details of the output.
        tools: Anthropic's counts of its own tools.
        tier: The service tier as it was told.
    """
    written = min(rest, written)
    hour = min(written, hour)
    rest -= written
    audio_in = min(rest, _whole(asked.get("audio_tokens")))
    audio_out = min(output, _whole(said.get("audio_tokens")))
    found = Particulars(
        cache_write_tokens=written - hour,
        cache_write_1h_tokens=hour,
        audio_input_tokens=audio_in,
        audio_output_tokens=audio_out,
        image_input_tokens=min(rest - audio_in, _whole(asked.get("image_tokens"))),
        image_output_tokens=min(output - audio_out, _whole(said.get("image_tokens"))),
        searches=_whole(tools.get("web_search_requests")),
        tier=read_tier(tier),
    )
    return NO_PARTICULARS if found == NO_PARTICULARS else found


def read_tier(told: object) -> str:
    """Return the service tier that an answer names, empty for the standard one."""
    if not isinstance(told, str) or told in _STANDARD:
        return ""
    return told if _TIER.fullmatch(told) else "unknown"


class Tally:
    """Counts what passes of a stream whose usage stands at its end only, in case that end does not come.

    Its beginning is counted event by event, as events without a word and of other lengths stand there; the
    rest by its bytes and lines, each event taken to be framed as the last one of the beginning.
    """

    __slots__ = ("_begun", "_bytes", "_events", "_lines", "_open", "_sample", "_text")

    def __init__(self) -> None:
        self._begun = False
        self._open = _BEGINNING
        self._events = self._text = self._bytes = self._lines = 0
        self._sample = b""

    def add(self, block: bytes) -> None:
        """Count one block of events; the first of all is a head if no word stands in it."""
        if self._open <= 0:
            self._bytes += len(block)
            self._lines += block.count(b"\n")  # a third of what it costs to look for events
            return
        words = [found for found in _TEXT.finditer(block) if found[1]]
        if words or self._begun:
            self._events += block.count(b"data:")
            self._text += sum(len(found[1]) for found in words)
        if words:
            self._open -= len(words)
            start, end = block.rfind(b"\n\n", 0, words[-1].start()), block.find(b"\n\n", words[-1].end())
            self._sample = block[start + 2 if start >= 0 else 0 : end + 2 if end >= 0 else len(block)]
        self._open -= 1
        self._begun = True

    def tokens(self) -> int:
        """Return an upper estimate of its tokens: a third of its text's bytes, at least one an event."""
        events, text = self._events, self._text
        if self._lines:
            more = -(-self._lines // max(2, self._sample.count(b"\n")))
            events += more
            if self._sample:
                frame = len(self._sample) - sum(len(said) for said in _TEXT.findall(self._sample))
                text += max(0, self._bytes - more * frame)
        # Once begun, what was asked is read, and a token is on its way.
        return max(events, -(-text // 3), int(self._begun))


_BEGINNING = 16
"""So many blocks and events with words, together, are the beginning of a stream."""
_TEXT = re.compile(
    rb'"(?:content|text|arguments|reasoning_content|delta|thinking|partial_json)":\s*"((?:[^"\\]|\\.)*)"'
)
_WORD = re.compile(_TEXT.pattern.replace(rb".)*)", rb".)+)"))


class Portions:
    """Adds up what a stream reports of each choice alone, as vLLM does until its last chunk.

    The count of said tokens is that of the chunk's own choice, and that of read ones its own prompt's: a
    completion's choices are numbered prompt by prompt.
    """

    __slots__ = ("_choices", "_told")

    def __init__(self, choices: int) -> None:
        """Take how many choices each prompt has."""
        self._choices = choices
        self._told: dict[int, Usage] = {}

    def add(self, chunk: dict[str, Any], told: Usage) -> Usage:
        """Take a chunk and the usage in it; returns the usage of all choices so far."""
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return told  # the last chunk, which speaks of all
        self._told[_whole(choices[0].get("index")) if isinstance(choices[0], dict) else 0] = told
        prompts = {index // self._choices: one.input_tokens for index, one in self._told.items()}
        cached = {index // self._choices: one.cached_input_tokens for index, one in self._told.items()}
        return replace(
            told,
            input_tokens=sum(prompts.values()),
            cached_input_tokens=sum(cached.values()),
            output_tokens=sum(one.output_tokens for one in self._told.values()),
            reasoning_tokens=sum(one.reasoning_tokens for one in self._told.values()),
        )


def estimate(sent_bytes: int, received_bytes: int) -> Usage:
    """Return an upper estimate for an answer without usage: three bytes a token, rounded up."""
    return Usage(input_tokens=-(-sent_bytes // 3), output_tokens=-(-received_bytes // 3))


def _part(holder: dict[str, Any], name: str) -> dict[str, Any]:
    found = holder.get(name)
    return found if isinstance(found, dict) else {}


_MOST = 2**53
"""More than anybody can have used: such a count has no price that the ledger could hold."""


def _whole(value: object) -> int:
    if type(value) is int:
        return min(value, _MOST) if value > 0 else 0
    if isinstance(value, str) and value.isdecimal():
        return min(int(value[:20]), _MOST)
    return min(value, _MOST) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
