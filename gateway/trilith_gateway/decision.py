"""What was decided on a request's way: short facts while it runs, words only when somebody asks.

A fact is a tuple of the gateway's own words, names from the settings, and numbers; its first part says what
it is. Nothing of a caller's text is ever in one. The row of the request in the ledger keeps them as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from trilith.errors import APIConnectionError, APIError, APIStatusError
from trilith.seams import Decision

_MOST_BYTES = 2048
"""What one row keeps; beyond it the middle of a long way is left out."""
_MOST_TEXT = 160

CAUSES: Mapping[str, str] = {
    "model_overloaded": "all its places are taken, and its queue is full or too slow",
    "model_not_ready": "it is not ready",
    "upstream_unavailable": "none of its replicas may be asked",
    "provider_unavailable": "its provider cannot be called",
    "features_unavailable": "the features that it needs cannot be had",
}
"""What the gateway's own refusals mean."""

_POLICIES: Mapping[str, str] = {
    "weighted": "its turn by weight",
    "least_outstanding": "it has the fewest open requests for its weight",
    "power_of_two": "the shorter wait of two taken at random",
    "cost": "the cheapest that answers soon enough",
    "prefix": "this beginning is kept there",
    "prefix-full": "the one that keeps this beginning is over capacity, this is the next",
    "prefix-none": "nothing to know the beginning by; the shorter wait of two taken at random",
}
_CACHE: Mapping[str, str] = {
    "hit": "a kept answer to the same request",
    "semantic": "a kept answer to a question that means the same",
    "joined": "the answer to the same request of another caller, which was under way",
    "miss": "nothing is kept for this request",
}


def cause(error: APIError) -> str:
    """Say why nothing answered, in our own words: a message of an upstream might hold a caller's."""
    if isinstance(error, APIConnectionError):
        return error.message
    if isinstance(error, APIStatusError):
        return error.code or f"status {error.status_code}"
    return type(error).__name__


def written(trail: Sequence[Decision]) -> str:
    """Return facts as the ledger keeps them: JSON of at most 2 kB."""
    try:
        found = orjson.dumps(trail)
    except orjson.JSONEncodeError:  # a word that is no text must not cost the charge that it stands beside
        return orjson.dumps([("more", len(trail))]).decode()
    if len(found) <= _MOST_BYTES:
        return found.decode()
    kept = [_cut(fact) for fact in trail]
    left_out = 0
    while len(found := orjson.dumps(_with_gap(kept, left_out))) > _MOST_BYTES:
        del kept[len(kept) // 2]
        left_out += 1
    return found.decode()


def _cut(fact: Decision) -> Decision:
    return tuple(
        part[:_MOST_TEXT] if isinstance(part, str) else part[:8] if isinstance(part, tuple) else part
        for part in fact
    )


def _with_gap(kept: list[Decision], left_out: int) -> list[Decision]:
    at = len(kept) // 2
    return [*kept[:at], ("more", left_out), *kept[at:]] if left_out else kept


def read(written: str) -> list[list[Any]]:
    """Return the facts of a row; none for a row of an earlier release."""
    return orjson.loads(written) if written else []


def words(fact: Sequence[Any]) -> str:
    """Return one fact as a sentence."""
    match list(fact):
        case ["route", number, model, other]:
            return f"route {number} of {model}: to {other}"
        case ["release", digest, model]:
            return f"release {digest}, which is {model}: as the caller asks"
        case ["tag", number, model, tag]:
            return f"route {number} of {model}: replicas with the tag {tag}"
        case ["replica", name, why, asked, out]:
            return _replica(name, why, asked, out)
        case ["retry", name, said]:
            return f"retry: {name or 'it'} did not answer ({said})"
        case ["hedge", name, other]:
            return f"hedge: {name} takes long, {other} is asked as well"
        case ["hedged", name]:
            return f"hedge: {name} was the first to answer"
        case ["fallback", model, int() as status]:
            return f"fallback: {model} answered with status {status}"
        case ["fallback", model, said]:
            return f"fallback: {model} did not answer ({CAUSES.get(said, said)})"
        case ["cascade", model, said, int() | float() as sure]:
            return f"cascade: {model} {said}, sure to {sure:.2f}"
        case ["cascade", model, said, *_]:  # JSON has no word for a number that is none
            return f"cascade: {model} {said}"
        case ["unanswered", model, said]:
            return f"cascade: {model} did not answer ({CAUSES.get(said, said)})"
        case ["queue", model, ms]:
            return f"queue: {ms} ms were spent waiting for a place at {model}"
        case ["cache", word, *age]:
            return f"cache: {_CACHE.get(word, word)}" + (f", {age[0]} s old" if age else "")
        case ["uncached", why]:
            return f"cache: not asked, {why}"
        case ["more", count]:
            return f"({count} more are not kept)"
    return ", ".join(map(str, fact))


def _replica(name: str, why: str, asked: int, out: Sequence[Sequence[str]]) -> str:
    away = ", ".join(f"{one} ({reason})" for one, reason in out)
    others = f"; not asked: {away}" if away else ""
    if not name:
        return f"replica: none may be asked{others}"
    if asked == 1:
        return f"replica: {name}, the only one that may be asked{others}"
    how = f", {_POLICIES.get(why, why)}" if why else ""
    return f"replica: {name} of {asked}{how}{others}"
