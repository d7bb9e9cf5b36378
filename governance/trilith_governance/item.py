"""Finds the texts in OpenAI's responses and Anthropic's messages, and in what else is more than a chat.

The rules are those of `walk`: definitions of tools stay, the field that names a user does not go on, and
pictures pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trilith.errors import PermissionDeniedError
from trilith.types import Verdict
from trilith_governance.protection import Protection
from trilith_governance.stream import StreamRestorer
from trilith_governance.walk import _deep, _escaped, _in_json, _reserve, _texts, beside

Body = dict[str, Any]
Change = Callable[[str], str]


def mask_response(body: Body, shield: Protection) -> Body:
    """Return a request for a response with its input, instructions and a stored prompt's variables masked."""
    prompt = body.get("prompt")
    masked = beside(body, shield, [body.get("input"), body.get("instructions"), prompt])
    if isinstance(prompt, dict) and "variables" in prompt:
        masked["prompt"] = {**prompt, "variables": _deep(prompt["variables"], shield.mask)}
    for name in ("input", "instructions"):
        if name in body:
            masked[name] = _items(body[name], shield.mask)
    return masked


def restore_response(body: Body, shield: Protection) -> Body:
    """Return a whole response with the originals in it."""
    return {
        name: _items(value, shield.restore) if name in ("output", "instructions", "input") else value
        for name, value in body.items()
    }


def mask_message(body: Body, shield: Protection) -> Body:
    """Return one of Anthropic's message requests with its turns and its system text masked."""
    _reserve([body.get("messages"), body.get("system")], shield)
    masked = {name: value for name, value in body.items() if name != "metadata"}
    for name in ("messages", "system"):
        if name in body:
            masked[name] = _items(body[name], shield.mask)
    return masked


def restore_message(body: Body, shield: Protection) -> Body:
    """Return a whole message with the originals in it."""
    return {**body, "content": _items(body.get("content"), shield.restore)}


def mask_rerank(body: Body, shield: Protection) -> Body:
    """Return a rerank request with its query and documents masked, under one set of placeholders."""
    _reserve([body.get("query"), body.get("documents")], shield)
    masked = {**body, "query": _texts(body.get("query"), shield.mask)}
    masked["documents"] = [
        _deep(document, shield.mask) if isinstance(document, dict) else _texts(document, shield.mask)
        for document in body.get("documents") or ()
    ]
    return masked


def restore_rerank(body: Body, shield: Protection) -> Body:
    """Return ranked documents with the originals in them."""
    return {**body, "results": _deep(body.get("results"), shield.restore)}


def mask_moderation(body: Body, shield: Protection) -> Body:
    """Return a moderation request with its texts masked.

    Raises:
        PermissionDeniedError: it holds pictures.
    """
    given = body.get("input")
    if isinstance(given, list) and any(isinstance(p, dict) and p.get("type") != "text" for p in given):
        raise _unsupported("cannot look into pictures")
    _reserve(given, shield)
    return {**body, "input": _texts(given, shield.mask)}


def restore_image(body: Body, shield: Protection) -> Body:
    """Return an answer with images, the originals in their revised prompts."""
    data = body.get("data")
    if not isinstance(data, list):
        return body
    return {**body, "data": [_only(item, "revised_prompt", shield.restore) for item in data]}


def check_speech(body: Body, shield: Protection) -> Body:
    """Refuse to have personal data spoken: a recording cannot be given its originals back.

    Raises:
        PermissionDeniedError: the text, or the instructions, hold some.
    """
    for name in ("input", "instructions"):
        if isinstance(text := body.get(name), str):
            shield.mask(text)
    if shield.counts:
        shield.verdict = Verdict.BLOCK
        raise _unsupported("found some in a text to be spoken, into which it cannot be put back")
    return body


def _unsupported(why: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"This model's policy keeps personal data from it, and {why}. Leave it out, or use another model.",
        status_code=403,
        code="policy_unsupported",
        type="permission_error",
    )


_SPOKEN = frozenset({"text", "output", "refusal", "content", "instructions", "summary", "thinking", "delta"})
_NESTED = frozenset({"content", "output", "summary", "source", "action"})


def _items(value: Any, change: Change) -> Any:
    """Change the texts of items, messages and blocks, whichever protocol they are of."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_items(item, change) for item in value]
    return _item(value, change) if isinstance(value, dict) else value


def _item(item: Body, change: Change) -> Body:
    changed = {**item}
    for name, value in item.items():
        if name == "input":  # a tool's arguments in Anthropic's protocol, a text in some of OpenAI's items
            changed[name] = _deep(value, change)
        elif name == "source" and item.get("type") == "document":
            changed[name] = _document(value, change)
        elif name == "arguments" and isinstance(value, str):
            changed[name] = _in_json(value, change)
        elif (name in _SPOKEN and isinstance(value, str)) or (
            name in _NESTED
            and isinstance(value, list | dict)
            and item.get("type") not in ("image", "document")
        ):
            changed[name] = _items(value, change)
    return changed


def _document(source: Any, change: Change) -> Any:
    """Change a document's text; one of bytes, or that is only named, passes as pictures do."""
    if isinstance(source, dict) and source.get("type") == "text" and isinstance(source.get("data"), str):
        return {**source, "data": change(source["data"])}
    if isinstance(source, dict) and source.get("type") == "content":
        return {**source, "content": _items(source.get("content"), change)}
    return source


def _only(item: Any, name: str, change: Change) -> Any:
    if isinstance(item, dict) and isinstance(item.get(name), str):
        return {**item, name: change(item[name])}
    return item


class _Texts:
    """Texts that arrive in pieces, each restored by itself."""

    def __init__(self, shield: Protection) -> None:
        self._shield = shield
        self._restorers: dict[tuple[object, ...], StreamRestorer] = {}

    def feed(self, key: tuple[object, ...], text: str, *, escaped: bool = False) -> str:
        """Return what of a text is certain by now."""
        if (restorer := self._restorers.get(key)) is None:
            originals = self._shield.originals
            if escaped:
                originals = {name: _escaped(value) for name, value in originals.items()}
            restorer = self._restorers[key] = StreamRestorer(originals)
        return restorer.feed(text)

    def flush(self, key: tuple[object, ...]) -> str:
        """Return what was held back of a text that has ended."""
        restorer = self._restorers.pop(key, None)
        return restorer.flush() if restorer is not None else ""


class ResponseStreamRestorer:
    """Restores a response's events; what is held back comes out as one more delta before the text's end."""

    def __init__(self, shield: Protection) -> None:
        self._shield = shield
        self._texts = _Texts(shield)
        self._last: dict[tuple[object, ...], Body] = {}
        self._added = 0

    def feed(self, chunk: Body) -> list[Body]:
        """Take one event and return those that can go out now, numbered on."""
        made = self._feed(chunk)
        if isinstance(number := chunk.get("sequence_number"), int):
            first = number + self._added
            made = [{**event, "sequence_number": first + at} for at, event in enumerate(made)]
            self._added += len(made) - 1
        return made

    def _feed(self, chunk: Body) -> list[Body]:
        kind = str(chunk.get("type", ""))
        stem, _, word = kind.rpartition(".")
        key = (stem, chunk.get("item_id"), chunk.get("output_index"), chunk.get("content_index"))
        if word == "delta" and isinstance(chunk.get("delta"), str):
            self._last[key] = chunk
            arguments = stem.endswith("arguments")
            return [{**chunk, "delta": self._texts.feed(key, chunk["delta"], escaped=arguments)}]
        if word == "done" and (last := self._last.pop(key, None)) is not None:
            held = self._texts.flush(key)
            end = self._whole(chunk)
            return [{**last, "delta": held}, end] if held else [end]
        return [self._whole(chunk)]

    def _whole(self, event: Body) -> Body:
        restore = self._shield.restore
        changed = {**event}
        for name in ("text", "refusal"):
            if isinstance(event.get(name), str):
                changed[name] = restore(event[name])
        if isinstance(event.get("arguments"), str):
            changed["arguments"] = _in_json(event["arguments"], restore)
        for name in ("part", "item"):
            if isinstance(event.get(name), dict):
                changed[name] = _item(event[name], restore)
        if isinstance(event.get("response"), dict):
            changed["response"] = restore_response(event["response"], self._shield)
        return changed


class MessageStreamRestorer:
    """Restores the events of one of Anthropic's messages."""

    _FIELDS: Mapping[str, str] = {
        "text": "text_delta",
        "partial_json": "input_json_delta",
        "thinking": "thinking_delta",
    }

    def __init__(self, shield: Protection) -> None:
        self._texts = _Texts(shield)
        self._open: dict[object, str] = {}

    def feed(self, chunk: Body) -> list[Body]:
        """Take one event and return those that can go out now."""
        index, kind = chunk.get("index"), chunk.get("type")
        if kind == "content_block_delta" and isinstance(delta := chunk.get("delta"), dict):
            for name in self._FIELDS:
                if isinstance(delta.get(name), str):
                    self._open[index] = name
                    text = self._texts.feed((index,), delta[name], escaped=name == "partial_json")
                    return [{**chunk, "delta": {**delta, name: text}}]
        if kind == "content_block_stop" and index in self._open:
            name = self._open.pop(index)
            if held := self._texts.flush((index,)):
                delta = {"type": self._FIELDS[name], name: held}
                return [{"type": "content_block_delta", "index": index, "delta": delta}, chunk]
        return [chunk]
