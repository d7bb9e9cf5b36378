"""Anthropic's own client against a chat model behind the gateway."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import Gateway, StartGateway

from trilith.errors import BadRequestError
from trilith.testing import MemoryUpstream
from trilith_gateway import sse
from trilith_gateway.dialect.anthropic import Stream, from_chat, to_chat

Ask = dict[str, Any]
ASK: Ask = {"model": "echo", "max_tokens": 50, "messages": [{"role": "user", "content": "one two three"}]}
TOOL = {"name": "weather", "description": "Look", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, upstream: MemoryUpstream) -> Gateway:
    return start_gateway({"echo": upstream}, echo={"policy": "private"})


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0) as made:
        yield made


def test_a_message_is_answered_and_charged(client: anthropic.Anthropic, gateway: Gateway) -> None:
    answer = client.messages.create(**ASK, system="Be brief.")
    assert (answer.content[0].text, answer.stop_reason, answer.model) == ("one two three", "end_turn", "echo")  # type: ignore[union-attr]
    (row,) = gateway.ledger()
    assert (row["rule"], row["output_tokens"]) == ("usage", answer.usage.output_tokens)


def test_a_stream_gives_the_same_text_and_usage(client: anthropic.Anthropic, gateway: Gateway) -> None:
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == "one two three"
        last = stream.get_final_message()
    assert last.usage.output_tokens == gateway.ledger()[0]["output_tokens"]
    assert last.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_is_masked_and_restored_here_too(
    client: anthropic.Anthropic, upstream: MemoryUpstream, stream: bool
) -> None:
    ask = ASK | {"messages": [{"role": "user", "content": [{"type": "text", "text": "I am Ada Lovelace"}]}]}
    if stream:
        with client.messages.stream(**ask) as answer:
            said = "".join(answer.text_stream)
    else:
        said = client.messages.create(**ask).content[0].text  # type: ignore[union-attr]
    assert said == "I am Ada Lovelace"
    assert b"Lovelace" not in upstream.calls[0].body


def test_errors_are_those_that_the_client_knows(gateway: Gateway, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**ASK | {"model": "nobody"})
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(**ASK | {"max_tokens": -1})
    stranger = anthropic.Anthropic(base_url=gateway.url, api_key="tl_wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(**ASK)


def test_an_upstreams_error_is_translated_and_keeps_its_status(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(fail_with=[429])})
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0) as client,
        pytest.raises(anthropic.RateLimitError, match="scripted") as caught,
    ):
        client.messages.create(**ASK)
    assert caught.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]


def test_a_stream_that_breaks_off_is_an_error_for_the_client(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream("a b c d", break_after=2)})
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError),
        client.messages.stream(**ASK) as stream,
    ):
        stream.until_done()
    assert [row["rule"] for row in gateway.ledger()] == ["broken"]


def translate(body: Ask) -> dict[str, Any]:
    return to_chat(body)


def test_tools_and_their_results_are_translated_both_ways() -> None:
    chat = translate(
        {
            **ASK,
            "tools": [TOOL],
            "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
            "messages": [
                {"role": "user", "content": "How is it?"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"a": 1}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sun"}]},
            ],
        }
    )
    assert chat["tools"][0]["function"]["name"] == "weather"
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert chat["parallel_tool_calls"] is False
    assert chat["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"a":1}'}
    assert chat["messages"][2] == {"role": "tool", "tool_call_id": "t1", "content": "sun"}
    call = {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": '{"b": 2}'}}
    answer = from_chat({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}, "m")
    assert answer["content"] == [{"type": "tool_use", "id": "t2", "name": "weather", "input": {"b": 2}}]
    assert answer["stop_reason"] == "tool_use"


def test_images_stop_words_and_unknown_fields_go_along() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    content = [{"type": "text", "text": "what?"}, image]
    chat = translate(
        {**ASK, "stop_sequences": ["x"], "top_k": 5, "messages": [{"role": "user", "content": content}]}
    )
    assert chat["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert (chat["stop"], chat["top_k"]) == (["x"], 5)


@pytest.mark.parametrize("content", [None, 3, [{"type": "document"}], [{"type": "image"}], ["text"]])
def test_content_that_chat_has_no_place_for_is_refused_by_name(content: object) -> None:
    with pytest.raises(BadRequestError, match="messages"):
        translate({**ASK, "messages": [{"role": "user", "content": content}]})


def test_cached_tokens_stand_beside_the_others() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    told = from_chat({"choices": [], "usage": usage}, "m")["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == (6, 4, 3)


def chunk(**delta: Any) -> bytes:
    return sse.encode({"id": "c", "choices": [{"index": 0, "delta": delta}]})


def run(events: list[bytes]) -> list[dict[str, Any]]:
    stream = Stream("m")
    out = b"".join(stream.feed(event) for event in events)
    return [found for event in sse.events(out) if (found := sse.decode(event)) is not None]


@given(st.lists(st.text(min_size=1), max_size=6))
def test_a_streamed_text_is_the_text_whatever_it_holds(texts: list[str]) -> None:
    events = run([*(chunk(content=text) for text in texts), sse.DONE])
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(deltas) == "".join(texts)
    assert events[-1] == {"type": "message_stop"}


def test_streamed_calls_of_tools_each_get_a_block() -> None:
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
    starts = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
    assert starts == ["text", "tool_use", "tool_use"]
    parts = [
        e["delta"]["partial_json"] for e in events if e.get("delta", {}).get("type") == "input_json_delta"
    ]
    assert "".join(parts) == '{"x":1}'
    stops: Callable[[str], int] = lambda kind: sum(event["type"] == kind for event in events)  # noqa: E731
    assert stops("content_block_start") == stops("content_block_stop") == 3


PICTURE: Ask = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def with_result(**more: Any) -> Ask:
    used = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t1", **more}
    turns = [{"role": "assistant", "content": [used]}, {"role": "user", "content": [result]}]
    return ASK | {"tools": [TOOL], "messages": [*ASK["messages"], *turns]}


@pytest.fixture
def plain(start_gateway: StartGateway, upstream: MemoryUpstream) -> Iterator[anthropic.Anthropic]:
    gateway = start_gateway({"echo": upstream})
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0) as made:
        yield made


def test_a_picture_in_a_tools_result_follows_it_and_an_error_is_told(
    plain: anthropic.Anthropic, upstream: MemoryUpstream
) -> None:
    plain.messages.create(**with_result(content=[PICTURE]))
    plain.messages.create(**with_result(content="gone", is_error=True))
    told, shown = orjson.loads(upstream.calls[0].body)["messages"][-2:]
    assert (told["role"], told["content"], shown["role"]) == ("tool", "An image, which follows.", "user")
    assert shown["content"][1]["image_url"]["url"] == "data:image/png;base64,aGk="
    assert orjson.loads(upstream.calls[1].body)["messages"][-1]["content"] == "Error: gone"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search_20250305"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
        ({"tools": [TOOL], "tool_choice": {"type": "unheard"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice"),
        (with_result(content=[{"type": "document"}]), "document"),
    ],
)
def test_what_a_chat_model_has_not_is_refused_by_name(
    plain: anthropic.Anthropic, upstream: MemoryUpstream, more: Ask, word: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match=word):
        plain.messages.create(**ASK | more)
    assert upstream.calls == []


def test_the_stop_word_that_the_upstream_names_is_told() -> None:
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "stop_reason": "END"}
    answer = from_chat({"choices": [choice]}, "m")
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")
    assert from_chat({"choices": [choice | {"stop_reason": 7}]}, "m")["stop_reason"] == "end_turn"
    last = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    events = run([chunk(content="a"), sse.encode({"id": "c", "choices": [last]}), sse.DONE])
    assert events[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_a_stream_without_a_chunk_is_a_message_all_the_same() -> None:
    assert [event["type"] for event in run([sse.DONE])] == ["message_start", "message_delta", "message_stop"]
