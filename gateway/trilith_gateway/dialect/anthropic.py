"""Anthropic's messages, translated to OpenAI's chat and back.

Fields that both know are renamed; fields that neither names are passed on, as everywhere. `thinking` and
`cache_control` are left out, for which chat has no place.
"""

from __future__ import annotations

from typing import Any

import orjson

from trilith.errors import APIError
from trilith.types import Usage
from trilith_gateway import fault, request, sse
from trilith_gateway.usage import read_usage

Body = dict[str, Any]

LAST = b'{"type":"message_stop"}'
"""The data of a stream's last event."""

_OWN = frozenset(
    {
        "messages",
        "system",
        "tools",
        "tool_choice",
        "stop_sequences",
        "metadata",
        "thinking",
        "container",
        "mcp_servers",
    }
)
_ROLES = ("user", "assistant", "system")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def to_chat(body: Body) -> Body:
    """Return the chat request that a message request means.

    Raises:
        BadRequestError: it holds a kind of content that chat has no place for.
    """
    chat: Body = {name: value for name, value in body.items() if name not in _OWN}
    chat["messages"] = _messages(body)
    if (tools := body.get("tools")) is not None:
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            request.refuse("`tools` is not a list of objects.", "tools")
        if tools:
            chat["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
    if (choice := body.get("tool_choice")) is not None:
        chat["tool_choice"] = _choice(choice)
        if choice.get("disable_parallel_tool_use") is True:
            chat["parallel_tool_calls"] = False
    if (stops := body.get("stop_sequences")) is not None:
        chat["stop"] = stops
    if isinstance(metadata := body.get("metadata"), dict) and metadata.get("user_id") is not None:
        chat["user"] = metadata["user_id"]
    if body.get("stream") is True:
        chat["stream_options"] = {"include_usage": True}
    return chat


def _choice(choice: object) -> object:
    given = choice if isinstance(choice, dict) else {}
    kind, name = given.get("type"), given.get("name")
    if isinstance(kind, str) and kind in _CHOICES:
        return _CHOICES[kind]
    if kind == "tool" and isinstance(name, str):
        return {"type": "function", "function": {"name": name}}
    request.refuse(
        f"`tool_choice` is none of {', '.join(_CHOICES)}, nor a `tool` with a `name`.", "tool_choice"
    )


def _messages(body: Body) -> list[Body]:
    found: list[Body] = []
    if (system := body.get("system")) is not None and (text := _plain(system, "system")):
        found.append({"role": "system", "content": text})
    for at, message in enumerate(body["messages"]):
        where, content = f"messages[{at}].content", message.get("content")
        if message["role"] not in _ROLES:
            request.refuse(f"`messages[{at}].role` is none of {', '.join(_ROLES)}.", f"messages[{at}].role")
        if isinstance(content, str):
            found.append({"role": message["role"], "content": content})
        elif not isinstance(content, list):
            request.refuse(f"`{where}` is neither a text nor a list of blocks.", where)
        elif message["role"] == "assistant":
            found.append(_said(content, where))
        else:
            found += _asked(message["role"], content, where)
    return found


def _said(blocks: list[Any], where: str) -> Body:
    """Return what the assistant said: texts and calls of tools."""
    if not all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks):
        request.refuse(f"`{where}` holds a block without a `type`.", where)
    texts = [block.get("text", "") for block in _of(blocks, "text")]
    used = _of(blocks, "tool_use")
    if not all(isinstance(text, str) for text in texts):
        request.refuse(f"`{where}` holds a text that is none.", where)
    if not all(isinstance(block.get(name), str) for block in used for name in ("id", "name")):
        request.refuse(f"`{where}` holds a call of a tool without `id` or `name`.", where)
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {
                "name": block.get("name"),
                "arguments": orjson.dumps(block.get("input") or {}).decode(),
            },
        }
        for block in used
    ]
    message: Body = {"role": "assistant", "content": "".join(texts) or None}
    return message | ({"tool_calls": calls} if calls else {})


def _asked(role: str, blocks: list[Any], where: str) -> list[Body]:
    """Return a user's turn: the tools' results first, as chat wants them, then the rest.

    A tool's message holds text alone, so the pictures in a result lead the user's words that follow.
    """
    told = _of(blocks, "tool_result")
    if not all(isinstance(block.get("tool_use_id"), str) for block in told):
        request.refuse(f"`{where}` holds a tool's result without `tool_use_id`.", where)
    results: list[Body] = []
    parts: list[Body] = []
    for block in told:
        text, seen = _result(block, where)
        results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": text})
        parts += seen
    for block in blocks:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            if not isinstance(text := block.get("text", ""), str):
                request.refuse(f"`{where}` holds a text that is none.", where)
            parts.append({"type": "text", "text": text})
        elif kind == "image":
            parts.append({"type": "image_url", "image_url": {"url": _image(block.get("source"), where)}})
        elif kind != "tool_result":
            request.refuse(
                f"`{where}` holds a block of the type {kind!r}, which a chat model does not take.", where
            )
    if not parts:
        return results
    if all(part["type"] == "text" for part in parts):
        return [*results, {"role": role, "content": "\n\n".join(part["text"] for part in parts)}]
    return [*results, {"role": role, "content": parts}]


def _result(block: Body, where: str) -> tuple[str, list[Body]]:
    """Return what a tool said, and the pictures that it gave, each after words that tell whose they are."""
    content = block.get("content", "")
    seen: list[Body] = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "image":
            url = _image(part.get("source"), where)
            seen.append({"type": "text", "text": f"From the result of {block['tool_use_id']}:"})
            seen.append({"type": "image_url", "image_url": {"url": url}})
        elif kind == "text":
            if not isinstance(part.get("text", ""), str):
                request.refuse(f"`{where}` holds a text that is none.", where)
        else:
            request.refuse(
                f"`{where}` holds a tool's result of the type {kind!r}, which a chat model does not take.",
                where,
            )
    text = _plain(content, where) or ("An image, which follows." if seen else "")
    return (f"Error: {text}" if block.get("is_error") is True else text), seen


def _of(blocks: list[Any], kind: str) -> list[Body]:
    return [block for block in blocks if isinstance(block, dict) and block.get("type") == kind]


def _plain(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n\n".join(str(block.get("text", "")) for block in _of(content, "text"))
    request.refuse(f"`{where}` is neither a text nor a list of blocks.", where)


def _image(source: object, where: str) -> str:
    given = source if isinstance(source, dict) else {}
    kind, data, media, url = (given.get(name) for name in ("type", "data", "media_type", "url"))
    if kind == "base64" and isinstance(data, str) and isinstance(media, str):
        return f"data:{media};base64,{data}"
    if kind == "url" and isinstance(url, str):
        return url
    request.refuse(f"`{where}` holds an image without a source.", where)


def _tool(tool: Body, where: str) -> Body:
    if (kind := tool.get("type")) not in (None, "custom"):
        request.refuse(
            f"`{where}` has the type {kind!r}, which only Anthropic's own models know; a chat model takes "
            "tools that are described by an `input_schema`.",
            where,
        )
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
    if (description := tool.get("description")) is not None:
        function["description"] = description
    return {"type": "function", "function": function}


def from_chat(answer: Body, model: str, asked: bytes = b"") -> Body:
    """Return the message that a chat's answer means."""
    choice = (answer.get("choices") or [{}])[0]
    said = choice.get("message") or {}
    content: list[Body] = []
    if text := said.get("content"):
        content.append({"type": "text", "text": text})
    for call in said.get("tool_calls") or ():
        function = call.get("function") or {}
        content.append(
            {
                "type": "tool_use",
                "id": call.get("id"),
                "name": function.get("name"),
                "input": _arguments(function.get("arguments")),
            }
        )
    return {
        "id": answer.get("id") or "msg",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **_stopped(choice),
        "usage": _usage(answer.get("usage")),
    }


def _stopped(choice: Body) -> Body:
    """Return why an answer ended; vLLM names the stop word, others do not tell it from the answer's end."""
    reason, word = choice.get("finish_reason") or "stop", choice.get("stop_reason")
    if reason == "stop" and isinstance(word, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": word}
    return {"stop_reason": _REASONS.get(reason, "end_turn"), "stop_sequence": None}


def counted(answer: Body, model: str, asked: bytes = b"") -> Body:
    """Return how many tokens a message would have, from what vLLM's `/tokenize` says."""
    return {"input_tokens": answer.get("count") or 0}


def _arguments(text: object) -> object:
    try:
        return orjson.loads(text) if isinstance(text, str) and text else {}
    except orjson.JSONDecodeError:
        return {"arguments": text}  # what the model wrote is not lost because it is not JSON


def _usage(reported: object) -> Body:
    """Return usage as Anthropic counts it: cached tokens beside the others, not among them."""
    used = read_usage(reported) or Usage()
    written = used.particulars.cache_write_tokens + used.particulars.cache_write_1h_tokens
    return {
        "input_tokens": used.uncached_input_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": used.cached_input_tokens,
        "output_tokens": used.output_tokens,
    }


class Stream:
    """Turns a chat's stream into a message's, chunk by chunk."""

    def __init__(self, model: str, asked: bytes = b"") -> None:
        self._model = model
        self._started = False
        self._open: str | None = None
        """Kind of the block that is open: `text`, or the index of a tool's call."""
        self._index = -1
        self._stopped = _stopped({})
        self._used = _usage(None)

    def feed(self, event: bytes) -> bytes:
        """Take one event and return those that follow from it; nothing for a comment."""
        data = sse.data(event)
        if data is None:
            return event
        if data == b"[DONE]":
            return self._end()
        chunk = sse.decode(event)
        if chunk is None:
            return b""
        out: list[bytes] = []
        if chunk.get("usage"):
            self._used = _usage(chunk["usage"])
        self._start(out, chunk.get("id"))
        for choice in (chunk.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                out += self._block("text", {"type": "text", "text": ""})
                out.append(self._delta({"type": "text_delta", "text": text}))
            for call in delta.get("tool_calls") or ():
                out += self._call(call)
            if choice.get("finish_reason"):
                self._stopped = _stopped(choice)
        return b"".join(out)

    def _start(self, out: list[bytes], id: object) -> None:
        if not self._started:
            self._started = True
            start = from_chat({"id": id}, self._model) | {"stop_reason": None}
            out.append(_event("message_start", message=start))

    def _call(self, call: Body) -> list[bytes]:
        function = call.get("function") or {}
        kind = f"call {call.get('index', 0)}"
        block: Body = {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": {}}
        out = self._block(kind, block)
        if arguments := function.get("arguments"):
            out.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))
        return out

    def _block(self, kind: str, block: Body) -> list[bytes]:
        if kind == self._open:
            return []
        out = self._close()
        self._open = kind
        self._index += 1
        return [*out, _event("content_block_start", index=self._index, content_block=block)]

    def _delta(self, delta: Body) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [_event("content_block_stop", index=self._index)]

    def _end(self) -> bytes:
        out: list[bytes] = []
        self._start(out, None)
        last = b"event: message_stop\ndata: %b\n\n" % LAST
        return b"".join(
            [*out, *self._close(), _event("message_delta", delta=self._stopped, usage=self._used), last]
        )


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), sse.dump({"type": kind, **fields}))


def error(error: APIError) -> Body:
    """Return Anthropic's error object."""
    return _error(fault.status(error), error.message)


def failure(failed: APIError) -> bytes:
    """Return the event that tells of an error in the middle of a stream."""
    return b"event: error\ndata: %b\n\n" % sse.dump(error(failed))


def refusal(body: bytes, status: int) -> bytes:
    """Return an upstream's error, which is in OpenAI's shape, in Anthropic's."""
    try:
        told = orjson.loads(body)
        message = told["error"]["message"] if isinstance(told["error"], dict) else str(told["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = "The upstream refused the request."
    return sse.dump(_error(status, str(message)))


def _error(status: int, message: str) -> Body:
    kind = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
