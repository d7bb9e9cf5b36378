"""Finds the texts in request and answer bodies and returns bodies with other texts in their place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from trilith_governance.protection import Protection
from trilith_governance.stream import StreamRestorer

Body = dict[str, Any]
Change = Callable[[str], str]

_IDENTITY = frozenset({"user", "safety_identifier"})
"""Fields that name a person to the provider."""
_BESIDE = ("metadata", "prediction", "documents", "prompt_cache_key", "web_search_options")
"""Fields beside the conversation in which texts of callers stand."""
_ANSWER_TEXTS = ("content", "reasoning", "reasoning_content", "refusal")


def mask_chat(body: Body, shield: Protection) -> Body:
    """Return a chat request with every text masked: contents, their parts, tool calls and results, names.

    Fields that name a person to the provider are left out of what goes on. Definitions of tools are the
    application's own text and stay.
    """
    masked = beside(body, shield, body.get("messages"))
    masked["messages"] = [_message(message, shield.mask) for message in body.get("messages", ())]
    return masked


def beside(body: Body, shield: Protection, texts: Any) -> Body:
    """Return a request without what names a person, and with what stands beside its `texts` masked."""
    more = {name: body[name] for name in _BESIDE if body.get(name) is not None}
    _reserve([texts, more], shield)
    masked = {name: value for name, value in body.items() if name not in _IDENTITY}
    masked.update((name, _deep(value, shield.mask)) for name, value in more.items())
    return masked


def mask_completion(body: Body, shield: Protection) -> Body:
    """Return a completion request with its prompt and suffix masked."""
    masked = beside(body, shield, [body.get("prompt"), body.get("suffix")])
    for name in ("prompt", "suffix"):
        if name in body:
            masked[name] = _texts(body[name], shield.mask)
    return masked


def mask_embedding_input(body: Body, shield: Protection) -> Body:
    """Return an embedding request with its input masked."""
    masked = beside(body, shield, body.get("input"))
    masked["input"] = _texts(body.get("input"), shield.mask)
    return masked


def check_tabular(body: Body, shield: Protection) -> None:
    """Look for personal data in an inference request's texts (BYTES tensors).

    Features are never masked: a model that was trained on them would answer something else. Only a policy
    that blocks has an effect.

    Raises:
        PermissionDeniedError: the policy refuses a kind that they hold.
    """
    for tensor in body.get("inputs", ()):
        if tensor.get("datatype") == "BYTES":
            for text in _strings(tensor.get("data")):
                shield.check(text)


def restore_chat(body: Body, shield: Protection) -> Body:
    """Return a whole chat or completion answer with the originals in it, citations included."""
    choices = []
    for choice in body.get("choices", ()):
        restored = {**choice}
        if isinstance(choice.get("message"), dict):
            restored["message"] = _answer(choice["message"], shield.restore)
        if isinstance(choice.get("text"), str):
            restored["text"] = shield.restore(choice["text"])
        choices.append(restored)
    return {**body, "choices": choices}


class ChatStreamRestorer:
    """Restores a stream of chat or completion chunks, each choice, field and tool call by itself."""

    def __init__(self, shield: Protection) -> None:
        self._shield = shield
        self._restorers: dict[tuple[object, ...], StreamRestorer] = {}

    def feed(self, chunk: Body) -> list[Body]:
        """Return the chunk, restored; what was held back comes out with its choice's `finish_reason`."""
        choices = [self._choice(choice) for choice in chunk.get("choices") or ()]
        return [{**chunk, "choices": choices} if choices else chunk]

    def _choice(self, choice: Body) -> Body:
        index, finished = choice.get("index", 0), choice.get("finish_reason") is not None
        restored = {**choice}
        if isinstance(choice.get("text"), str):
            restored["text"] = self._text((index, "text"), choice["text"], finished)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return restored
        changed = {**delta}
        for name in _ANSWER_TEXTS:
            key = (index, name)
            if isinstance(delta.get(name), str) or (finished and self._holds(key)):
                changed[name] = self._text(key, delta.get(name) or "", finished)
        if isinstance(delta.get("tool_calls"), list):
            changed["tool_calls"] = [self._tool_call(index, call, finished) for call in delta["tool_calls"]]
        if isinstance(delta.get("citations"), list):
            changed["citations"] = delta["citations"]  # quotes are the documents' own characters
        restored["delta"] = changed
        return restored

    def _tool_call(self, index: int, call: Body, finished: bool) -> Body:
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
            return call
        key = (index, "tool", call.get("index", 0))
        arguments = self._text(key, function["arguments"], finished, escaped=True)
        return {**call, "function": {**function, "arguments": arguments}}

    def _holds(self, key: tuple[object, ...]) -> bool:
        return key in self._restorers

    def _text(self, key: tuple[object, ...], text: str, finished: bool, *, escaped: bool = False) -> str:
        restorer = self._restorers.get(key)
        if restorer is None:
            originals = self._shield.originals
            if escaped:
                originals = {name: _escaped(value) for name, value in originals.items()}
            restorer = self._restorers[key] = StreamRestorer(originals)
        restored = restorer.feed(text)
        return restored + restorer.flush() if finished else restored


def _message(message: Body, change: Change) -> Body:
    changed = {**message}
    if "content" in message:
        changed["content"] = _texts(message["content"], change)
    if isinstance(message.get("name"), str) and message.get("role") != "tool":
        changed["name"] = change(message["name"])
    if isinstance(message.get("tool_calls"), list):
        changed["tool_calls"] = [
            _called(call, lambda t: _in_json(t, change)) for call in message["tool_calls"]
        ]
    return changed


def _answer(message: Body, change: Change) -> Body:
    changed = {**message}
    for name in _ANSWER_TEXTS:
        if isinstance(message.get(name), str):
            changed[name] = change(message[name])
    if isinstance(message.get("tool_calls"), list):
        changed["tool_calls"] = [
            _called(call, lambda t: _in_json(t, change)) for call in message["tool_calls"]
        ]
    return changed


def _called(call: Body, change: Change) -> Body:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    return {**call, "function": {**function, "arguments": change(function["arguments"])}}


def _in_json(text: str, change: Change) -> str:
    """Change the strings inside a JSON text; one that is not JSON, or is nested too deeply, as a whole."""
    try:
        return json.dumps(_deep(json.loads(text), change), ensure_ascii=False)
    except (ValueError, RecursionError):
        return change(text)


def _deep(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_deep(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _deep(item, change) for name, item in value.items()}
    return value


def _texts(value: Any, change: Change) -> Any:
    """Change a text, a list of texts, or a list of content parts; token ids and images stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {name: change(v) if name == "text" and isinstance(v, str) else v for name, v in value.items()}
    return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)


def _reserve(value: Any, shield: Protection) -> None:
    """Note the caller's own placeholder-like texts everywhere, before the first number is given out."""
    for text in _strings(value):
        shield.reserve(text)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
