"""OpenAI's responses in front of upstreams that speak chat alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import Gateway, StartGateway

from trilith.errors import BadRequestError
from trilith.testing import MemoryUpstream
from trilith_gateway import sse
from trilith_gateway.dialect.response import Stream, from_chat, to_chat

CHAT_ONLY = {"upstream": {"url": "http://127.0.0.1:9/v1", "protocol": "chat"}, "policy": "private"}
TOOL = {"type": "function", "name": "weather", "description": "Look", "parameters": {"type": "object"}}


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, upstream: MemoryUpstream) -> Gateway:
    return start_gateway({"echo": upstream}, echo=CHAT_ONLY)


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as made:
        yield made


def test_a_response_is_answered_by_a_chat_and_charged_once(
    client: openai.OpenAI, gateway: Gateway, upstream: MemoryUpstream
) -> None:
    answer = client.responses.create(model="echo", input="one two three", instructions="Be brief.")
    assert (answer.output_text, answer.status, answer.model) == ("one two three", "completed", "echo")
    sent = json.loads(upstream.calls[0].body)
    assert upstream.calls[0].path == "/v1/chat/completions"
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    (row,) = gateway.ledger()
    assert answer.usage is not None
    assert (row["rule"], row["output_tokens"]) == ("usage", answer.usage.output_tokens)


def test_a_stream_gives_the_same_text_as_the_clients_own_accumulator_sees_it(
    client: openai.OpenAI, gateway: Gateway
) -> None:
    with client.responses.stream(model="echo", input="I am Ada Lovelace, hello") as events:
        seen = list(events)
        final = events.get_final_response()
    deltas = [event.delta for event in seen if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text == "I am Ada Lovelace, hello"
    assert final.usage is not None
    assert gateway.ledger()[0]["output_tokens"] == final.usage.output_tokens


def test_the_model_never_sees_what_the_policy_masks(client: openai.OpenAI, upstream: MemoryUpstream) -> None:
    assert client.responses.create(model="echo", input="I am Ada Lovelace").output_text == "I am Ada Lovelace"
    assert b"Lovelace" not in upstream.calls[0].body


@pytest.mark.parametrize(
    "more",
    [
        {"previous_response_id": "resp_1"},
        {"store": True},
        {"background": True},
        {"conversation": "conv_1"},
        {"tools": [{"type": "web_search"}]},
        {"input": [{"type": "item_reference", "id": "i"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_a_chat_cannot_do_is_refused_by_name(client: openai.OpenAI, more: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "echo", "input": "hi", **more})
    assert str(caught.value.param).startswith(next(iter(more)))


def test_a_stream_that_breaks_off_is_an_error_for_the_client(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream("a b c d", break_after=2)}, echo=CHAT_ONLY)
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as client,
        pytest.raises(openai.APIError),
    ):
        list(client.responses.create(model="echo", input="hi", stream=True))
    assert [row["rule"] for row in gateway.ledger()] == ["broken"]


def test_functions_and_their_results_are_translated_both_ways() -> None:
    chat = to_chat(
        {
            "model": "m",
            "max_output_tokens": 9,
            "tools": [TOOL],
            "tool_choice": {"type": "function", "name": "weather"},
            "reasoning": {"effort": "low"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
            "top_k": 5,
            "input": [
                {"role": "developer", "content": "Look outside."},
                {"role": "user", "content": "How is it?"},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"a": 1}'},
                {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sun"},
            ],
        }
    )
    assert [message["role"] for message in chat["messages"]] == ["system", "user", "assistant", "tool"]
    assert [call["id"] for call in chat["messages"][2]["tool_calls"]] == ["c1", "c2"]
    assert chat["tools"][0]["function"]["name"] == "weather"
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert (chat["max_tokens"], chat["reasoning_effort"], chat["top_k"]) == (9, "low", 5)
    assert chat["response_format"]["json_schema"]["name"] == "n"
    call = {"id": "c3", "type": "function", "function": {"name": "weather", "arguments": '{"b": 2}'}}
    answer = from_chat({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}, "m")
    (item,) = answer["output"]
    assert (item["type"], item["call_id"], item["arguments"]) == ("function_call", "c3", '{"b": 2}')


def test_an_answer_that_was_cut_is_incomplete_and_cached_tokens_are_a_part() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    answer = from_chat(
        {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}], "usage": usage}, "m"
    )
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["usage"]["input_tokens"] == 10
    assert answer["usage"]["input_tokens_details"] == {"cached_tokens": 4}


@pytest.mark.parametrize("given", [3, [3], [{"role": "user", "content": 3}], [{"content": "x"}]])
def test_input_that_is_none_is_refused_by_name(given: object) -> None:
    with pytest.raises(BadRequestError, match="input"):
        to_chat({"model": "m", "input": given})


def chunk(**delta: Any) -> bytes:
    return sse.encode({"id": "c", "choices": [{"index": 0, "delta": delta}]})


def run(events: list[bytes]) -> list[dict[str, Any]]:
    stream = Stream("m")
    out = b"".join(stream.feed(event) for event in events)
    assert all(event.startswith(b"event: ") for event in sse.events(out))
    return [found for event in sse.events(out) if (found := sse.decode(event)) is not None]


@given(st.lists(st.text(min_size=1), max_size=6))
def test_a_streamed_text_is_the_text_whatever_it_holds(texts: list[str]) -> None:
    events = run([chunk(role="assistant"), *(chunk(content=text) for text in texts), sse.DONE])
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == "".join(texts)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    said = [part["text"] for item in last["output"] for part in item["content"]]
    assert (last["status"], "".join(said)) == ("completed", "".join(texts))


def test_streamed_calls_of_functions_each_get_an_item() -> None:
    def call(index: int, **more: Any) -> bytes:
        return chunk(tool_calls=[{"index": index, **more}])

    events = run(
        [
            chunk(role="assistant", content="Let me look."),
            call(0, id="a", function={"name": "f", "arguments": '{"x"'}),
            call(0, function={"arguments": ":1}"}),
            call(1, id="b", function={"name": "g", "arguments": ""}),
            sse.DONE,
        ]
    )
    output = events[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call", "function_call"]
    assert [item.get("arguments") for item in output] == [None, '{"x":1}', ""]
    kinds = [event["type"] for event in events]
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3


def test_a_request_is_echoed_and_only_its_allowed_tools_go_on(
    client: openai.OpenAI, upstream: MemoryUpstream
) -> None:
    other: Any = TOOL | {"name": "other"}
    allowed: Any = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "weather"}],
    }
    ask: Any = {
        "model": "echo",
        "input": "hi",
        "instructions": "I am Ada Lovelace",
        "temperature": 0.5,
        "top_logprobs": 2,
        "tools": [TOOL, other],
        "tool_choice": allowed,
    }
    answer = client.responses.create(**ask)
    with client.responses.stream(**ask) as events:
        streamed = events.get_final_response()
    for told in (answer, streamed):
        assert (told.instructions, told.temperature, told.top_logprobs) == ("I am Ada Lovelace", 0.5, 2)
        assert [getattr(tool, "name", None) for tool in told.tools] == ["weather", "other"]
        assert getattr(told.tool_choice, "mode", None) == "required"
    sent = json.loads(upstream.calls[0].body)
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["weather"]
    assert (sent["tool_choice"], sent["logprobs"], sent["top_logprobs"]) == ("required", True, 2)


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "file_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "nobody"}]},
        {"type": "allowed_tools", "mode": "never", "tools": [{"type": "function", "name": "weather"}]},
    ],
)
def test_a_choice_that_chat_does_not_know_is_refused(client: openai.OpenAI, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        client.responses.create(model="echo", input="hi", tools=[TOOL], tool_choice=choice)  # type: ignore[list-item]


def test_an_item_that_was_cut_is_incomplete_in_a_stream_and_whole() -> None:
    last = sse.encode({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    events = run([chunk(content="a"), last, sse.DONE])
    (done,) = (event["item"] for event in events if event["type"] == "response.output_item.done")
    assert done["status"] == events[-1]["response"]["output"][0]["status"] == "incomplete"
    whole = from_chat({"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}, "m")
    assert whole["output"][0]["status"] == "incomplete"
