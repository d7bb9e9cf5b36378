"""An answer in its other form says the same: through the official client's own parsing, and back again."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from trilith.types import Usage
from trilith_gateway import sse
from trilith_gateway.caching import replay

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
OTHER = {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
TOKEN = {"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}


def answer(*choices: dict[str, Any], **fields: Any) -> bytes:
    made = [{"index": at, "finish_reason": "stop", "logprobs": None, **one} for at, one in enumerate(choices)]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    head = {"id": "c1", "object": "chat.completion", "created": 7, "model": "m"}
    return json.dumps({**head, "choices": made, "usage": usage, **fields}).encode()


def said(text: str | None, **fields: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, **fields}}


ANSWERS = {
    "plain": answer(said("hello \u00fc")),
    "two choices": answer(said("a"), said("b")),
    "tool calls": answer(said(None, tool_calls=[CALL, OTHER]) | {"finish_reason": "tool_calls"}),
    "logprobs": answer(said("hi") | {"logprobs": {"content": [TOKEN, TOKEN], "refusal": None}}),
    "refusal": answer(said(None, refusal="I will not.")),
    "citations": answer(said("see [1]", citations=[{"number": 1}])),
    "reasoning": answer(said("4", reasoning_content="2 and 2"), system_fingerprint="f"),
}


def parsed(stream: bytes) -> ChatCompletion:
    """Let the official client put a stream together."""
    head = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=head, content=stream))
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(base_url="http://x/v1", api_key="k", http_client=http) as client,
        client.chat.completions.stream(model="m", messages=[]) as events,
    ):
        return events.get_final_completion()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_survives_being_a_stream(name: str) -> None:
    whole = ANSWERS[name]
    stream = replay.stream(whole, None, usage_wanted=True)
    assert stream is not None
    again = replay.whole(stream, None)
    assert again is not None
    assert _bare(json.loads(again)) == _bare(json.loads(whole))


@pytest.mark.parametrize("name", ANSWERS)
def test_the_official_client_reads_the_same_from_both_forms(name: str) -> None:
    stream = replay.stream(ANSWERS[name], None, usage_wanted=True)
    assert stream is not None
    read, whole = parsed(stream), ChatCompletion.model_validate_json(ANSWERS[name])
    assert read.usage == whole.usage
    for one, other in zip(read.choices, whole.choices, strict=True):
        assert one.finish_reason == other.finish_reason
        assert (one.message.content or None) == other.message.content
        assert one.message.role == other.message.role
        assert one.message.refusal == other.message.refusal
        calls = [(c.id, c.function) for c in one.message.tool_calls or []]  # type: ignore[union-attr]
        wanted = [(c.id, c.function) for c in other.message.tool_calls or []]  # type: ignore[union-attr]
        assert [(a, f.name, f.arguments) for a, f in calls] == [(a, f.name, f.arguments) for a, f in wanted]
        if other.logprobs is not None:
            assert one.logprobs is not None
            assert one.logprobs.content == other.logprobs.content


def test_a_stream_says_role_first_then_words_then_why_it_ended_then_done() -> None:
    stream = replay.stream(ANSWERS["plain"], None, usage_wanted=True)
    assert stream is not None
    *events, done = sse.events(stream)
    chunks = [sse.decode(event) for event in events]
    assert done == b"data: [DONE]\n\n"
    assert [chunk["object"] for chunk in chunks if chunk] == ["chat.completion.chunk"] * 4
    first, text, last, usage = (chunk for chunk in chunks if chunk)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text["choices"][0]["delta"] == {"content": "hello \u00fc"}
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 5)


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **choice: Any) -> bytes:
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return sse.encode(
        {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish, **choice}]}
    )


def test_a_stream_of_pieces_is_put_together_choice_by_choice_and_call_by_call() -> None:
    def call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": index, **first, "function": {"arguments": arguments}}]}

    opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
    stream = b"".join(
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"role": "assistant", "content": ""}, index=1),
            chunk({"tool_calls": [opening]}),
            chunk(call(0, '{"a"')),
            chunk({"content": "other "}, index=1),
            b": a comment\n\n",
            chunk(call(0, ":1}")),
            chunk({"content": "choice"}, index=1, logprobs={"content": [TOKEN]}),
            chunk({}, "stop", index=1, logprobs={"content": [TOKEN]}),
            chunk({}, "tool_calls"),
            sse.DONE,
        ]
    )
    made = replay.whole(stream, Usage(input_tokens=3, output_tokens=2, reasoning_tokens=1))
    assert made is not None
    value = json.loads(made)
    one, two = value["choices"]
    assert one["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert (one["message"]["content"], one["finish_reason"]) == (None, "tool_calls")
    assert two["message"]["content"] == "other choice"
    assert two["logprobs"]["content"] == [TOKEN, TOKEN]
    assert value["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


def test_a_completion_survives_both_ways() -> None:
    whole = json.dumps(
        {
            "id": "t",
            "object": "text_completion",
            "created": 7,
            "model": "m",
            "choices": [{"index": 0, "text": "words", "logprobs": None, "finish_reason": "stop"}],
        }
    ).encode()
    stream = replay.stream(whole, Usage(1, 1), usage_wanted=False)
    assert stream is not None
    assert b'"usage"' not in stream
    again = replay.whole(stream, None)
    assert again is not None
    assert _bare(json.loads(again)) == _bare(json.loads(whole))


@pytest.mark.parametrize(
    "stream", [b"", sse.DONE, chunk({"content": "cut"}), sse.encode({"error": {"message": "x"}}) + sse.DONE]
)
def test_what_is_no_complete_stream_is_not_made_an_answer(stream: bytes) -> None:
    assert replay.whole(stream, None) is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"object": "list", "data": []}'])
def test_what_is_no_chat_answer_is_not_made_a_stream(body: bytes) -> None:
    assert replay.stream(body, None, usage_wanted=True) is None


def _bare(value: Any) -> Any:
    """The same without nulls, which mean nothing."""
    if isinstance(value, dict):
        return {name: _bare(part) for name, part in value.items() if part is not None}
    return [_bare(part) for part in value] if isinstance(value, list) else value
