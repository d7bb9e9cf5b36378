"""Anthropic's messages in front of an upstream that speaks them itself: bytes pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from support.gateway import PRICE, Gateway, Running
from support.scripted_server import Scripted, ScriptedServer

from trilith.settings.policy import PiiSettings
from trilith.settings.schema import Settings
from trilith.testing import PatternScanner
from trilith_gateway import sse
from trilith_governance import MessageStreamRestorer, Protection

ASK: dict[str, Any] = {
    "model": "claude",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "I am Ada Lovelace"}],
}
USAGE = {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20}


def whole(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "theirs",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**USAGE, "output_tokens": 7},
    }


def events(text: str) -> list[bytes]:
    start = whole("") | {"content": [], "usage": {**USAGE, "output_tokens": 1}}
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
    values: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    return [f"event: {v['type']}\ndata: {json.dumps(v)}\n\n".encode() for v in values]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Any]:
    """Start a gateway in front of a server with a script."""
    with ExitStack() as stack:

        def start(*script: Scripted, **model: Any) -> tuple[Gateway, ScriptedServer]:
            server = stack.enter_context(ScriptedServer(script))
            place = {
                "url": f"{server.url}/v1",
                "protocol": "anthropic",
                "model": "theirs",
                "api_key": "secret",
            }
            price = PRICE | {"cached_input_usd_per_mtok": "0.1"}
            described = {"kind": "chat", "upstream": place, "price": price, **model}
            settings = Settings.model_validate(
                {"home": tmp_path / "home", "policies": {"private": {}}, "models": {"claude": described}}
            )
            return stack.enter_context(Running(settings, {})), server

        yield start


@pytest.fixture
def client() -> Iterator[Callable[[Gateway], anthropic.Anthropic]]:
    """Make Anthropic's own client for a gateway."""
    with ExitStack() as stack:
        yield lambda gateway: stack.enter_context(
            anthropic.Anthropic(base_url=gateway.url, api_key=gateway.token, max_retries=0)
        )


def test_a_message_passes_with_its_headers_and_is_charged_with_its_cached_tokens(
    run: Any, client: Any
) -> None:
    gateway, server = run(Scripted(body=whole("hello")))
    document: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}}
    more: Any = {"messages": [{"role": "user", "content": [document]}], "thinking": {"type": "disabled"}}
    answer = client(gateway).messages.create(
        **ASK | more, extra_headers={"anthropic-beta": "some-beta"}, extra_body={"unknown": [1]}
    )
    assert answer.content[0].text == "hello"
    (got,) = (received for received in server.received if received.method == "POST")
    assert got.path == "/v1/messages"
    assert got.json()["model"] == "theirs"
    assert (got.json()["messages"], got.json()["unknown"]) == (more["messages"], [1])
    assert got.headers["x-api-key"] == "secret"
    assert (got.headers["anthropic-version"][:2], got.headers["anthropic-beta"]) == ("20", "some-beta")
    assert "authorization" not in got.headers
    (row,) = gateway.ledger()
    assert (row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (123, 100, 7)
    assert row["amount_pico_usd"] == 23 * 10**6 + 100 * 10**5 + 7 * 3 * 10**6


def test_a_stream_passes_byte_for_byte_and_is_charged_alike(run: Any) -> None:
    sent = events("hello there")
    gateway, _ = run(Scripted(parts=sent, headers={"content-type": "text/event-stream"}))
    with gateway.client() as http:
        got = http.post("/v1/messages", json={**ASK, "stream": True})
    assert got.content == b"".join(sent)
    (row,) = gateway.ledger()
    assert (row["rule"], row["input_tokens"], row["cached_input_tokens"], row["output_tokens"]) == (
        "usage",
        123,
        100,
        7,
    )


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_is_masked_and_restored(run: Any, client: Any, stream: bool) -> None:
    text = "Dear <PERSON_1>, hello"
    script = (
        Scripted(parts=events(text), headers={"content-type": "text/event-stream"})
        if stream
        else Scripted(body=whole(text))
    )
    gateway, server = run(script, policy="private")
    if stream:
        with client(gateway).messages.stream(**ASK) as answer:
            said = "".join(answer.text_stream)
    else:
        said = client(gateway).messages.create(**ASK).content[0].text
    assert said == "Dear Ada Lovelace, hello"
    assert b"Lovelace" not in b"".join(received.body for received in server.received)


def test_its_errors_pass_as_they_are_and_cost_nothing(run: Any, client: Any) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}, "request_id": "r"}
    gateway, _ = run(Scripted(529, error))
    with pytest.raises(anthropic.APIStatusError) as caught:
        client(gateway).messages.create(**ASK)
    assert (caught.value.status_code, caught.value.body) == (529, error)
    assert [row["amount_pico_usd"] for row in gateway.ledger()] == [0]


def test_a_stream_that_breaks_off_ends_with_its_own_error_event(run: Any) -> None:
    headers = {"content-type": "text/event-stream"}
    gateway, _ = run(Scripted(parts=events("hello")[:5], headers=headers, breaks=True))
    with gateway.client() as http:
        got = http.post("/v1/messages", json={**ASK, "stream": True})
    last = sse.events(got.content)[-1]
    assert last.startswith(b"event: error\n")
    assert (sse.decode(last) or {})["error"]["type"] == "api_error"
    (row,) = gateway.ledger()
    assert (row["rule"], row["estimated"], row["input_tokens"]) == ("broken", 1, 123)
    assert 2 <= row["output_tokens"] <= 5  # "hello" came in two events, and some without a word


def test_what_it_does_not_speak_is_refused_and_says_where_to_go(run: Any) -> None:
    gateway, server = run(Scripted(body={}))
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as other,
        pytest.raises(openai.BadRequestError, match="/v1/messages") as caught,
    ):
        other.chat.completions.create(model="claude", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.code == "operation_unsupported"
    assert [got.method for got in server.received if got.method != "GET"] == []


def test_a_tools_streamed_arguments_get_their_data_back() -> None:
    shield = Protection(PatternScanner(names=["Ada Lovelace"]), PiiSettings())
    shield.mask("Ada Lovelace")
    restorer = MessageStreamRestorer(shield)
    deltas: list[dict[str, Any]] = [
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": p}}
        for p in ('{"a": "<PER', "SON_", '1>"}', "<PER")
    ]
    made = [f for e in [*deltas, {"type": "content_block_stop", "index": 1}] for f in restorer.feed(e)]
    parts = [event["delta"]["partial_json"] for event in made if "delta" in event]
    assert "".join(parts) == '{"a": "Ada Lovelace"}<PER'
    assert made[-1] == {"type": "content_block_stop", "index": 1}


SPARE = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
LONG = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}}
WITHHELD = whole("") | {"content": [], "stop_reason": "refusal"}


@pytest.mark.parametrize(
    ("first", "amount"),
    [
        (Scripted(529, SPARE), 0),
        (Scripted(400, LONG), 0),
        (Scripted(body=WITHHELD), 23 * 10**6 + 100 * 10**5 + 7 * 3 * 10**6),
    ],
    ids=["overloaded", "too long", "withheld"],
)
def test_another_model_answers_what_this_one_could_not_and_each_is_charged(
    tmp_path: Path, client: Any, first: Scripted, amount: int
) -> None:
    with ScriptedServer([first]) as one, ScriptedServer([Scripted(body=whole("spare"))]) as other:
        models = {
            name: {
                "kind": "chat",
                "upstream": {"url": f"{server.url}/v1", "protocol": "anthropic", "model": "theirs"},
                "price": PRICE | {"cached_input_usd_per_mtok": "0.1"},
                "fallbacks": others,
            }
            for name, server, others in (("claude", one, ["spare"]), ("spare", other, []))
        }
        settings = Settings.model_validate({"home": tmp_path / "home", "models": models})
        with Running(settings, {}) as gateway:
            assert client(gateway).messages.create(**ASK).content[0].text == "spare"
            rows = [(row["model"], row["amount_pico_usd"]) for row in gateway.ledger()]
    assert rows == [("claude", amount), ("spare", 23 * 10**6 + 100 * 10**5 + 7 * 3 * 10**6)]


def test_its_clients_find_the_requests_id_and_the_rate_limits(run: Any, client: Any) -> None:
    told = {"request-id": "req_theirs", "anthropic-ratelimit-input-tokens-remaining": "7"}
    gateway, _ = run(Scripted(body=whole("hello"), headers=told))
    raw = client(gateway).messages.with_raw_response.create(**ASK)
    assert raw.parse()._request_id == raw.headers["x-request-id"]
    assert raw.headers["x-upstream-request-id"] == "req_theirs"
    assert raw.headers["anthropic-ratelimit-input-tokens-remaining"] == "7"
