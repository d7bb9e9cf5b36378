"""One answer in two forms: a stream folded into a whole answer, and a whole answer spread into a stream.

An answer that is asked for in the form that it came in goes out byte for byte as it came, ids and times
included. In the other form it says the same with the same id, in the order that OpenAI's protocol has: the
role first, then what was said, `finish_reason`, usage where it was asked for, and `[DONE]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from trilith.types import Usage
from trilith_gateway import sse

Body = dict[str, Any]

_CHAT, _CHUNK, _TEXT = "chat.completion", "chat.completion.chunk", "text_completion"
_FIRST_WINS = frozenset({"role", "id", "type", "name", "index"})
"""Parts of a message that are said once; other texts are said bit by bit."""


def whole(stream: bytes, usage: Usage | None) -> bytes | None:
    """Fold a complete stream into a whole answer; None when it is none that can be folded."""
    answer: Body = {}
    choices: dict[int, Body] = {}
    for event in sse.events(stream):
        chunk = sse.decode(event)
        if chunk is None:
            continue
        if "error" in chunk or chunk.get("object") not in (_CHUNK, _TEXT):
            return None
        for name, value in chunk.items():
            if name != "choices" and answer.get(name) is None:
                answer[name] = value
        for choice in chunk.get("choices") or ():
            _fold(choices.setdefault(choice.get("index", 0), {}), choice)
    if not choices or not sse.ends(stream, b"[DONE]"):
        return None
    chats = answer["object"] == _CHUNK
    answer["object"] = _CHAT if chats else _TEXT
    answer["choices"] = [_finished(choices[at], chats=chats) for at in sorted(choices)]
    if answer.get("usage") is None and usage is not None:
        answer["usage"] = reported(usage)
    return sse.dump(answer)


def stream(answer: bytes, usage: Usage | None, *, usage_wanted: bool) -> bytes | None:
    """Spread a whole answer into a stream; None when it is none that can be spread."""
    body = orjson.loads(answer)
    if not isinstance(body, dict) or body.get("object") not in (_CHAT, _TEXT) or not body.get("choices"):
        return None
    chats = body["object"] == _CHAT
    head = {name: value for name, value in body.items() if name not in ("choices", "usage")}
    head["object"] = _CHUNK if chats else _TEXT
    parts = [part for choice in body["choices"] for part in _spread(choice, chats=chats)]
    events = [sse.encode({**head, "choices": [part]}) for part in parts]
    told = body.get("usage") or (reported(usage) if usage is not None else None)
    if usage_wanted and told is not None:
        events.append(sse.encode({**head, "choices": [], "usage": told}))
    return b"".join((*events, sse.DONE))


def with_usage(stream: bytes, usage: Usage | None, *, wanted: bool) -> bytes:
    """Return a stream with its report of usage, or without; the same bytes where nothing has to change."""
    events = sse.events(stream)
    told = [at for at, event in enumerate(events) if b'"usage"' in event and _only_usage(event)]
    if not wanted:
        return b"".join(event for at, event in enumerate(events) if at not in told) if told else stream
    if told or usage is None:
        return stream
    heads = [chunk for event in events if (chunk := sse.decode(event)) is not None]
    if not heads:
        return stream
    head = {name: value for name, value in heads[0].items() if name not in ("choices", "usage")}
    last = next((at for at, event in enumerate(events) if sse.ends(event, b"[DONE]")), len(events))
    report = sse.encode({**head, "choices": [], "usage": reported(usage)})
    return b"".join((*events[:last], report, *events[last:]))


def reported(usage: Usage) -> Body:
    """Return usage in OpenAI's words."""
    told: Body = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_input_tokens:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens}
    if usage.reasoning_tokens:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return told


def _only_usage(event: bytes) -> bool:
    chunk = sse.decode(event)
    return chunk is not None and chunk.get("usage") is not None and not chunk.get("choices")


def _fold(choice: Body, part: Mapping[str, Any]) -> None:
    for name, value in part.items():
        if name == "delta":
            _merge(choice.setdefault("message", {}), value)
        elif name == "text":
            choice["text"] = choice.get("text", "") + (value or "")
        elif name == "logprobs" and isinstance(value, dict):
            found = choice.get("logprobs")
            choice["logprobs"] = found = found if isinstance(found, dict) else {}
            _merge(found, value)
        elif choice.get(name) is None:
            choice[name] = value


def _merge(whole: Body, part: Mapping[str, Any]) -> None:
    """Add what a chunk says to what was said: texts and lists grow, numbered entries grow by their number."""
    for name, value in part.items():
        said = whole.get(name)
        if name == "tool_calls" and isinstance(value, list):
            calls = whole.setdefault(name, [])
            for call in value:
                _merge(_numbered(calls, call.get("index", 0)), call)
        elif value is None or said is None:
            whole[name] = _copy(value) if said is None else said
        elif isinstance(value, str) and isinstance(said, str):
            whole[name] = said if name in _FIRST_WINS else said + value
        elif isinstance(value, list) and isinstance(said, list):
            said.extend(value)
        elif isinstance(value, dict) and isinstance(said, dict):
            _merge(said, value)
        elif name not in _FIRST_WINS:
            whole[name] = value


def _numbered(calls: list[Body], index: int) -> Body:
    for call in calls:
        if call.get("index") == index:
            return call
    calls.append({"index": index})
    return calls[-1]


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    return list(value) if isinstance(value, list) else value


def _finished(choice: Body, *, chats: bool) -> Body:
    choice.setdefault("index", 0)
    choice.setdefault("finish_reason", None)
    if chats:
        message = choice.setdefault("message", {})
        message.setdefault("role", "assistant")
        for call in message.get("tool_calls") or ():
            call.pop("index", None)  # only chunks have it
        if message.get("tool_calls") or message.get("refusal"):
            message["content"] = message.get("content") or None  # what a whole answer without words has
        message.setdefault("content", None)
    return choice


def _spread(choice: Body, *, chats: bool) -> list[Body]:
    index = choice.get("index", 0)
    last = {name: value for name, value in choice.items() if name not in ("message", "text", "logprobs")}
    logprobs = choice.get("logprobs")
    if not chats:
        said: Body = {"index": index, "text": choice.get("text", ""), "logprobs": logprobs}
        return [said | {"finish_reason": None}, {**last, "text": "", "logprobs": None}]
    message = choice["message"]
    delta = {name: value for name, value in message.items() if name != "role" and value is not None}
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(delta["tool_calls"])]
    role = {"role": message.get("role", "assistant"), "content": ""}
    return [
        {"index": index, "delta": role, "logprobs": None, "finish_reason": None},
        {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None},
        {**last, "delta": {}, "logprobs": None},
    ]
