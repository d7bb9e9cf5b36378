"""OpenAI's responses, translated to chat and back, for upstreams that speak chat alone.

The stateless part: text, pictures, functions, reasoning effort, structured output, streams. What would need
memory here (`previous_response_id`, `store`, `background`, `conversation`) or tools that the provider runs is
refused by name.
"""

from __future__ import annotations

import secrets
import time
from typing import Any, cast

import orjson

from trilith_gateway import request, sse

Body = dict[str, Any]

LAST = b'"type":"response.completed"'
"""Words that only a stream's last event holds."""

_OWN = frozenset(
    {
        "background",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "previous_response_id",
        "reasoning",
        "safety_identifier",
        "store",
        "text",
        "tool_choice",
        "tools",
        "truncation",
    }
)
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
_STATE = ("previous_response_id", "conversation", "prompt")


def to_chat(body: Body) -> Body:
    """Return the chat request that a request for a response means.

    Raises:
        BadRequestError: it asks for what a chat model cannot do.
    """
    for name in _STATE:
        if body.get(name) is not None:
            request.refuse(f"`{name}` needs a memory that this model has not; send the whole input.", name)
    if body.get("store") is True or body.get("background") is True:
        name = "store" if body.get("store") is True else "background"
        request.refuse(f"`{name}` is not offered for this model; leave it out, or send false.", name)
    chat: Body = {name: value for name, value in body.items() if name not in _OWN}
    chat["messages"] = _messages(body)
    if (most := body.get("max_output_tokens")) is not None:
        chat["max_tokens"] = most
    if tools := body.get("tools"):
        chat["tools"] = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
        if (choice := body.get("tool_choice")) is not None:
            chat["tool_choice"] = _choice(choice, chat)
    if body.get("top_logprobs") is not None:
        chat["logprobs"] = True  # chat gives none without
    if isinstance(reasoning := body.get("reasoning"), dict) and reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    if isinstance(text := body.get("text"), dict) and (shape := _shape(text.get("format"))) is not None:
        chat["response_format"] = shape
    if body.get("stream") is True:
        chat["stream_options"] = {"include_usage": True}
    return chat


def _messages(body: Body) -> list[Body]:
    found: list[Body] = []
    if isinstance(instructions := body.get("instructions"), str) and instructions:
        found.append({"role": "system", "content": instructions})
    given = body.get("input")
    if isinstance(given, str):
        return [*found, {"role": "user", "content": given}]
    if not isinstance(given, list):
        request.refuse("`input` is neither a text nor a list of items.", "input")
    for at, item in enumerate(given):
        where = f"input[{at}]"
        if not isinstance(item, dict):
            request.refuse(f"`{where}` is not an object.", where)
        kind = item.get("type") or "message"
        if kind == "message":
            found.append({"role": _role(item, where), "content": _content(item.get("content"), where)})
        elif kind == "function_call":
            _called(found, item)
        elif kind == "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str) else _content(output, where)
            found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
        elif kind != "reasoning":  # what another model thought is of no use to this one
            request.refuse(f"`{where}` has the type {kind!r}, which a chat model does not take.", where)
    return found


def _role(item: Body, where: str) -> str:
    role = item.get("role")
    if not isinstance(role, str):
        request.refuse(f"`{where}` has no `role`.", where)
    return "system" if role == "developer" else role


def _called(found: list[Body], item: Body) -> None:
    """Add a call of a function to the assistant's turn before it, or to a new one."""
    function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    if found and found[-1]["role"] == "assistant":
        found[-1].setdefault("tool_calls", []).append(call)
    else:
        found.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _content(content: object, where: str) -> str | list[Body]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        request.refuse(f"`{where}.content` is neither a text nor a list of parts.", f"{where}.content")
    parts: list[Body] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("input_text", "output_text", "text", "refusal"):
            parts.append({"type": "text", "text": str(part.get("text") or part.get("refusal") or "")})
        elif kind == "input_image" and isinstance(part.get("image_url"), str):
            image = {"url": part["image_url"]}
            if part.get("detail"):
                image["detail"] = part["detail"]
            parts.append({"type": "image_url", "image_url": image})
        else:
            request.refuse(
                f"`{where}.content` holds a part of the type {kind!r}, which a chat model does not take.",
                f"{where}.content",
            )
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _tool(tool: object, where: str) -> Body:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else None
        request.refuse(f"`{where}` has the type {kind!r}; a chat model calls functions only.", where)
    kept = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in kept if tool.get(name) is not None}}


def _choice(choice: object, chat: Body) -> object:
    """Return chat's choice; where only some tools are allowed, the others are taken out of `chat`."""
    if isinstance(choice, str):
        return choice
    given = choice if isinstance(choice, dict) else {}
    if given.get("type") == "function":
        return {"type": "function", "function": {"name": given.get("name")}}
    allowed, mode = given.get("tools"), given.get("mode", "auto")
    if (
        given.get("type") != "allowed_tools"
        or not isinstance(allowed, list)
        or mode not in ("auto", "required")
    ):
        request.refuse(
            "`tool_choice` is neither a word, a function nor a list of allowed tools.", "tool_choice"
        )
    names = [tool.get("name") if isinstance(tool, dict) else None for tool in allowed]
    kept = [tool for tool in chat["tools"] if tool["function"].get("name") in names]
    if not kept or len(kept) < len(names):
        request.refuse("`tool_choice.tools` names none of `tools`, or one that is not there.", "tool_choice")
    chat["tools"] = kept
    return mode


def _shape(given: object) -> Body | None:
    if not isinstance(given, dict) or given.get("type") in (None, "text"):
        return None
    if given["type"] != "json_schema":
        return {"type": given["type"]}
    kept = ("name", "description", "schema", "strict")
    return {"type": "json_schema", "json_schema": {n: given[n] for n in kept if given.get(n) is not None}}


def from_chat(answer: Body, model: str, asked: bytes = b"") -> Body:
    """Return the response that a chat's answer means, to a request whose body was `asked`."""
    choice = (answer.get("choices") or [{}])[0]
    said = choice.get("message") or {}
    output: list[Body] = []
    status = "incomplete" if choice.get("finish_reason") in _CUT else "completed"
    if text := said.get("content"):
        output.append(_message(_id("msg"), [_text(text)], status))
    for call in said.get("tool_calls") or ():
        function = call.get("function") or {}
        output.append(
            _call(_id("fc"), call.get("id"), function.get("name"), function.get("arguments") or "{}", status)
        )
    response = _response(_id("resp"), model, int(answer.get("created") or time.time()), asked)
    return _ended(response, output, choice.get("finish_reason"), answer.get("usage"))


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def _text(text: str) -> Body:
    return {"type": "output_text", "text": text, "annotations": []}


def _message(id: str, content: list[Body], status: str) -> Body:
    return {"type": "message", "id": id, "role": "assistant", "status": status, "content": content}


def _call(id: str, call_id: object, name: object, arguments: str, status: str = "completed") -> Body:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def _response(id: str, model: str, created: int, asked: bytes) -> Body:
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
        **_echoed(asked),
    }


def _echoed(asked: bytes) -> Body:
    """Return what a response repeats of its request."""
    given = orjson.loads(asked) if asked else {}
    return {name: given[name] for name in _ECHOED if given.get(name) is not None}


def _ended(response: Body, output: list[Body], reason: object, used: object) -> Body:
    cut = _CUT.get(str(reason))
    return {
        **response,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": cut} if cut else None,
        "output": output,
        "usage": _usage(used),
    }


def _usage(told: object) -> Body | None:
    if not isinstance(told, dict):
        return None
    asked, said = told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (told.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": asked + said,
    }


class Stream:
    """Turns a chat's stream into a response's events, chunk by chunk."""

    def __init__(self, model: str, asked: bytes = b"") -> None:
        self._response = _response(_id("resp"), model, int(time.time()), asked)
        self._number = -1
        self._started = False
        self._output: list[Body] = []
        """Items so far; the last one may be open."""
        self._open: str | None = None
        """What is open: `text`, or the index of a call."""
        self._reason: str | None = None
        self._used: object = None

    def feed(self, event: bytes) -> bytes:
        """Take one event and return those that follow from it; nothing for a comment."""
        data = sse.data(event)
        if data is None:
            return event
        out: list[bytes] = []
        if data == b"[DONE]":
            self._end(out)
            return b"".join(out)
        chunk = sse.decode(event)
        if chunk is None:
            return b""
        if not self._started:
            self._started = True
            out.append(self._event("response.created", response=self._response))
            out.append(self._event("response.in_progress", response=self._response))
        if chunk.get("usage"):
            self._used = chunk["usage"]
        for choice in (chunk.get("choices") or ())[:1]:
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                self._say(out, text)
            for call in delta.get("tool_calls") or ():
                self._called(out, call)
            self._reason = choice.get("finish_reason") or self._reason
        return b"".join(out)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        data = sse.dump({"type": kind, "sequence_number": self._number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _at(self) -> Body:
        """Return what names the open item in an event."""
        return {"output_index": len(self._output) - 1, "item_id": self._output[-1]["id"]}

    def _begin(self, out: list[bytes], what: str, item: Body) -> None:
        self._close(out)
        self._open = what
        self._output.append(item)
        out.append(
            self._event("response.output_item.added", output_index=self._at()["output_index"], item=item)
        )

    def _say(self, out: list[bytes], text: str) -> None:
        if self._open != "text":
            self._begin(out, "text", _message(_id("msg"), [], "in_progress"))
            out.append(
                self._event("response.content_part.added", **self._at(), content_index=0, part=_text(""))
            )
            self._output[-1] = self._output[-1] | {"content": [_text("")]}
        part = self._output[-1]["content"][0]
        part["text"] += text
        out.append(
            self._event("response.output_text.delta", **self._at(), content_index=0, delta=text, logprobs=[])
        )

    def _called(self, out: list[bytes], call: Body) -> None:
        function = call.get("function") or {}
        what = f"call {call.get('index', 0)}"
        if what != self._open:
            item = _call(_id("fc"), call.get("id"), function.get("name"), "", "in_progress")
            self._begin(out, what, item)
        if arguments := function.get("arguments"):
            self._output[-1] = self._output[-1] | {"arguments": self._output[-1]["arguments"] + arguments}
            out.append(self._event("response.function_call_arguments.delta", **self._at(), delta=arguments))

    def _close(self, out: list[bytes], status: str = "completed") -> None:
        if self._open is None:
            return
        item = self._output[-1] = self._output[-1] | {"status": status}
        if self._open == "text":
            part = cast(Body, item["content"][0])
            place = {**self._at(), "content_index": 0}
            out.append(self._event("response.output_text.done", **place, text=part["text"], logprobs=[]))
            out.append(self._event("response.content_part.done", **place, part=part))
        else:
            out.append(
                self._event(
                    "response.function_call_arguments.done",
                    **self._at(),
                    name=item["name"],
                    arguments=item["arguments"],
                )
            )
        out.append(
            self._event("response.output_item.done", output_index=self._at()["output_index"], item=item)
        )
        self._open = None

    def _end(self, out: list[bytes]) -> None:
        self._close(out, "incomplete" if self._reason in _CUT else "completed")
        ended = _ended(self._response, self._output, self._reason, self._used)
        kind = "response.incomplete" if ended["status"] == "incomplete" else "response.completed"
        out.append(self._event(kind, response=ended))
