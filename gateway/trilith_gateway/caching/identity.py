"""When two requests are the same request: the key of an answer, and which answers would come out alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from trilith.types import Kind
from trilith_gateway import request
from trilith_gateway.api import Operation
from trilith_gateway.caching import guard
from trilith_gateway.exchange import Exchange

_WITHOUT_EFFECT = frozenset(
    {
        "model",  # the release stands for it
        "user",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "priority",  # vLLM: who is served first
        "request_id",  # vLLM
    }
)
"""Fields that change nothing in an answer. Every other field counts, also one that nobody here knows: a model
may look at it. Of a predictor's request every field counts."""
_USAGE_ONLY = {"include_usage"}
_DEFAULTS: Mapping[str, object] = {"n": 1}
"""Values that mean the same as leaving the field out. Few do: a server may have defaults of its own."""
_OF_NO_ANSWER = frozenset({"traceparent", "tracestate", "content-type"})
"""Headers that go on and change nothing in an answer."""
_STATEFUL = frozenset({"conversation", "previous_response_id", "background"})
"""Fields that make an answer depend on more than its request."""

_SORTED = orjson.OPT_SORT_KEYS
_MOST_WHOLE = 2**53
"""Beyond that a float is no exact number, and far beyond orjson writes no whole one."""


def cacheable(exchange: Exchange) -> bool:
    """Say whether the request alone decides its answer."""
    body = exchange.body
    if exchange.operation.scores:
        return "inputs" in body
    return not any(body.get(name) for name in _STATEFUL)


def deterministic(exchange: Exchange) -> bool:
    """Say whether the same request, asked again, is to be answered the same."""
    if exchange.target.kind in (Kind.EMBEDDING, Kind.PREDICTOR):
        return True
    body = exchange.body
    if body.get("seed") is not None:
        return True
    temperature = body.get("temperature")
    if temperature is None:
        return exchange.target.kind is Kind.RAG  # which asks its generator for 0
    return bool(temperature == 0)


def canonical(body: Mapping[str, Any], operation: Operation) -> dict[str, Any]:
    """Return what of a body decides the answer.

    Fields are told by name, not by place (`digest` sorts them at every depth); null is the same as nothing,
    and 0.0 the same as 0 in a field of its own. `stream` and the wish for usage do not count where a stream
    can be turned into a whole answer and back: the two are forms of one answer.

    Args:
        body: As the upstream will get it, masked.
        operation: What is asked for.
    """
    if operation.scores:
        return dict(body)
    found = {}
    for name, value in body.items():
        if value is None or name in _WITHOUT_EFFECT or (operation.generates and name == "stream"):
            continue
        if operation.generates and name == "stream_options":
            value = {option: chosen for option, chosen in value.items() if option not in _USAGE_ONLY}
            if not value:
                continue
        elif type(value) is float and value.is_integer() and abs(value) < _MOST_WHOLE:
            value = int(value)
        if name in _DEFAULTS and value == _DEFAULTS[name]:
            continue
        found[name] = value
    return found


def key(exchange: Exchange, version: str) -> bytes:
    """Return the key of a request's answer.

    Team and policy are part of it, so no answer crosses them; so are the release and the version of what it
    answers from, so none outlives a change of either.

    Args:
        exchange: Admitted and masked.
        version: Of the release's documents or trained model.
    """
    body = canonical(exchange.body, exchange.operation)
    return digest([*_place(exchange), version, body])


def scope(exchange: Exchange, version: str) -> str:
    """Return what two chats must have in common besides their last message to share an answer."""
    body = canonical(exchange.body, exchange.operation)
    body["messages"] = body["messages"][:-1]
    return digest(["scope", *_place(exchange), version, body]).hex()


def named(exchange: Exchange, name: str) -> tuple[bytes, bytes, bytes]:
    """Return what an idempotency key stands for.

    What the caller has sent is compared and nothing of ours: a retry stays the same request although the
    model has another release meanwhile. Under another policy it is answered anew.

    Returns:
        The key under which the request is kept, what identifies the request, and the key of its answer.
    """
    used = digest(["idempotency", exchange.caller.id, name])
    literal = digest([exchange.path, request.decode(exchange.raw)])
    release = exchange.target
    return used, literal, digest([used.hex(), literal.hex(), release.policy, release.policy_digest])


def digest(parts: object) -> bytes:
    """Return sha256 over `parts`, whatever the order of their fields."""
    return hashlib.sha256(orjson.dumps(parts, option=_SORTED)).digest()


def _place(exchange: Exchange) -> list[object]:
    release = exchange.target
    path = exchange.operation.path or exchange.path  # what asks the upstream for the same gets the same
    return [
        exchange.caller.team,
        release.policy,
        release.policy_digest,
        release.digest,
        path,
        _told(exchange),
    ]


def _told(exchange: Exchange) -> dict[str, str]:
    """Return the headers that go on and may change the answer, such as `anthropic-beta`."""
    operation, given = exchange.operation, exchange.headers
    names = [name for name in operation.forwards if name not in _OF_NO_ANSWER and name in given]
    return {**operation.headers, **{name: given[name] for name in names}}


def question(exchange: Exchange) -> str | None:
    """Return a chat's last message where an answer to another one with the same meaning would do, else None.

    Not where the answer has to fit a machine: tools, several choices, probabilities, or images.
    """
    body = exchange.body
    if any(body.get(name) for name in ("tools", "functions", "logprobs", "top_logprobs", "logit_bias")):
        return None
    if body.get("n") not in (None, 1):
        return None
    if exchange.target.kind is Kind.RAG and exchange.protection is not None and exchange.protection.counts:
        return None  # the body still has the caller's own data in it, and a question is kept
    messages = body.get("messages")
    last = messages[-1] if messages else None
    if last is None or last.get("role") != "user" or set(last) - {"role", "content"}:
        return None
    content = last.get("content")
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0].get("text") if content[0].get("type") == "text" else None
    if not isinstance(content, str) or len(content) > guard.MOST_COMPARED:
        return None
    return content.strip() or None
