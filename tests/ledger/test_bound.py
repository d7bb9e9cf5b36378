"""What is reserved is never less than what a request can cost, also where it only refers to things."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from support.gateway import Gateway, StartGateway
from support.told import TellingUpstream, answer, event

from trilith_gateway.api import OPERATIONS, Api
from trilith_gateway.media import _seconds
from trilith_gateway.request import hosted, references

IN, OUT = 1_000_000, 2_000_000
PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}


@pytest.mark.parametrize(
    ("api", "body", "tokens"),
    [
        (Api.COMPLETION, {"prompt": ["a"] * 50, "max_tokens": 1000}, 50_000),
        (Api.COMPLETION, {"prompt": [[1, 2], [3]], "max_tokens": 10, "n": 3}, 60),
        (Api.COMPLETION, {"prompt": [1, 2, 3], "max_tokens": 10}, 10),
        (Api.COMPLETION, {"prompt": [1, "a", "a"], "max_tokens": 10}, 20),
        (Api.COMPLETION, {"prompt": "a", "max_tokens": 10, "best_of": 4}, 40),
        (Api.CHAT, {"max_tokens": 100_000, "max_completion_tokens": 1}, 100_000),
        (Api.CHAT, {"max_completion_tokens": 7}, 7),
        (Api.CHAT, {}, 64),
    ],
)
def test_every_prompt_and_every_choice_may_be_as_long_as_it_asks(
    api: Api, body: dict[str, Any], tokens: int
) -> None:
    assert OPERATIONS[api].bound(body, 100, 64).output_tokens == tokens


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


PICTURE = {"type": "input_image", "image_url": "https://example.com/a.png"}
SCREEN = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"messages": [{"role": "user", "content": "words"}]}, (0, False)),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE, IMAGE]}]},
            (2, False),
        ),
        ({"messages": [{"content": [{"type": "tool_result", "content": [IMAGE]}]}]}, (1, False)),
        ({"input": "words", "previous_response_id": "resp_1"}, (0, True)),
        ({"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}, (1, False)),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_image"}]}]}, (1, False)),
        ({"prompt": {"id": "pmpt_1"}}, (0, True)),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, (1, False)),
        ({"input": [{"type": "item_reference", "id": "msg_1"}], "messages": []}, (1, False)),
        ({"prompt": "a plain completion"}, (0, False)),
    ],
)
def test_what_is_only_referred_to_is_seen(body: dict[str, Any], found: tuple[int, bool]) -> None:
    assert references(body) == found


@pytest.mark.parametrize(
    ("path", "body", "used"),
    [
        ("/v1/completions", {"prompt": ["a"] * 100, "max_tokens": 100}, (100, 10_000)),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 5},
            (1500, 5),
        ),
        (
            "/v1/responses",
            {"input": "x", "conversation": "conv_1", "max_output_tokens": 5},
            (1500, 5),
        ),
        (
            "/v1/responses",
            {"input": [{"role": "user", "content": [PICTURE]}], "max_output_tokens": 5},
            (1500, 5),
        ),
        ("/v1/messages", {"messages": [{"role": "user", "content": [SCREEN]}], "max_tokens": 5}, (1500, 5)),
    ],
)
def test_a_budget_that_does_not_have_the_most_refuses(
    start_gateway: StartGateway, path: str, body: dict[str, Any], used: tuple[int, int]
) -> None:
    names = (
        ("input_tokens", "output_tokens")
        if path == "/v1/responses"
        else ("prompt_tokens", "completion_tokens")
    )
    told = answer(dict(zip(names, used, strict=True)))
    gateway = start_gateway({"echo": TellingUpstream(told)}, echo={"price": PRICE, "conversations": True})
    cost = used[0] * IN + used[1] * OUT
    poor, rich = gateway.mint(budget_pico_usd=cost - 1), gateway.mint(budget_pico_usd=1000 * cost)
    for token, status in ((poor, 429), (rich, 200)):
        with gateway.client(token=token) as client:
            assert client.post(path, json={"model": "echo", **body}).status_code == status
    (row,) = [row for row in gateway.ledger() if row["rule"] == "usage"]
    assert row["amount_pico_usd"] == cost


def test_a_response_that_would_be_made_later_is_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": TellingUpstream(answer({}))})
    with gateway.client() as client:
        refused = client.post("/v1/responses", json={"model": "echo", "input": "x", "background": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")


def wav(rate: int, byte_rate: int, seconds: int) -> bytes:
    form = struct.pack("<HHIIHH", 1, 1, rate, byte_rate, 2, 16)
    data = bytes(rate * 2 * seconds)
    return b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("byte_rate", [16_000, 2**31, 0])
def test_a_recording_is_as_long_as_its_samples(byte_rate: int) -> None:
    raw = wav(8000, byte_rate, 100)
    assert _seconds(raw, 0, len(raw)) == 101  # with its head


DEAR_WORDS = {"price": PRICE, "max_output_tokens": 5}


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ({}, 2 * 8192),
        ({"reference_tokens": 20_000}, 40_000),
        ({"reference_tokens": 20_000, "context_tokens": 30_000}, 30_000),
    ],
)
def test_what_a_picture_may_come_to_is_the_models_own(
    start_gateway: StartGateway, model: dict[str, Any], tokens: int
) -> None:
    gateway = start_gateway({"echo": TellingUpstream(answer({}))}, echo=DEAR_WORDS | model)
    body = {"model": "echo", "messages": [{"role": "user", "content": [IMAGE, IMAGE]}]}
    size = len(json.dumps(body, separators=(",", ":")))
    most = (tokens + size) * IN + 5 * OUT
    for budget, status in ((most - 1, 429), (most, 200)):
        with gateway.client(token=gateway.mint(budget_pico_usd=budget)) as client:
            assert client.post("/v1/chat/completions", json=body).status_code == status


def test_a_call_that_costs_more_than_was_held_for_it_is_told_of(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    told = answer({"prompt_tokens": 50_000, "completion_tokens": 5})
    gateway = start_gateway({"echo": TellingUpstream(told)}, echo=DEAR_WORDS)
    for _ in range(2):
        gateway.chat()
    assert (
        'trilith_reservation_exceeded_total{kind="chat",model="echo"} 2.0'
        in gateway.platform.metrics.text().decode()
    )
    (warned,) = [record for record in caplog.records if "reserved" in record.getMessage()]
    assert "reference_tokens" in warned.getMessage()


TOKENS = {"price": {"input_usd_per_mtok": "5", "output_usd_per_mtok": "40"}}


def fits(gateway: Gateway, path: str, budget: int, **asked: Any) -> bool:
    with gateway.client(token=gateway.mint(budget_pico_usd=budget)) as client:
        answered = client.post(path, **asked)
    assert answered.status_code in (200, 429)
    return answered.status_code == 200


def test_images_that_are_priced_by_the_token_are_held_to_what_they_may_come_to(
    start_gateway: StartGateway,
) -> None:
    usage = {"input_tokens": 300, "output_tokens": 2 * 4160, "total_tokens": 8620}
    made = TellingUpstream({"created": 1, "data": [{"b64_json": "a"}] * 2, "usage": usage})
    gateway = start_gateway({"paint": made}, paint={"kind": "image", **TOKENS})
    cost = 300 * 5 * IN + 2 * 4160 * 40 * IN
    form = {"data": {"model": "paint", "prompt": "x", "n": "2"}, "files": {"image": ("a.png", b"x")}}
    asked = {"json": {"model": "paint", "prompt": "x", "n": 2}}
    for path, request in (("/v1/images/generations", asked), ("/v1/images/edits", form)):
        assert not fits(gateway, path, cost - 1, **request)
        assert fits(gateway, path, 4 * cost, **request)
    assert [row["amount_pico_usd"] for row in gateway.ledger() if row["rule"] == "usage"] == [cost, cost]


def test_a_recording_that_is_priced_by_the_token_is_held_to_what_it_may_come_to(
    start_gateway: StartGateway,
) -> None:
    usage = {"type": "tokens", "input_tokens": 130, "output_tokens": 60, "total_tokens": 190}
    heard = TellingUpstream({"text": "hi", "usage": usage})
    gateway = start_gateway({"voice": heard}, voice={"kind": "audio", **TOKENS})
    cost = 130 * 5 * IN + 60 * 40 * IN
    form = {"data": {"model": "voice"}, "files": {"file": ("a.wav", wav(8000, 16_000, 10))}}
    assert not fits(gateway, "/v1/audio/transcriptions", cost - 1, **form)
    assert fits(gateway, "/v1/audio/transcriptions", 10 * cost, **form)
    (row,) = [row for row in gateway.ledger() if row["rule"] == "usage"]
    assert row["amount_pico_usd"] == cost


def test_what_is_priced_by_the_token_and_reported_by_nobody_is_unpriced(start_gateway: StartGateway) -> None:
    made = TellingUpstream({"created": 1, "data": [{"b64_json": "a"}]})
    gateway = start_gateway({"paint": made}, paint={"kind": "image", **TOKENS})
    with gateway.client() as client:
        client.post("/v1/images/generations", json={"model": "paint", "prompt": "x"})
    (row,) = gateway.ledger()
    assert (row["rule"], row["amount_pico_usd"], row["images"]) == ("unpriced", None, 1)


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
EDITOR = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}
FUNCTION = {"type": "function", "function": {"name": "pay"}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"tools": [SEARCH]}, (3, 3)),
        ({"tools": [SEARCH, {"type": "web_fetch_20250910", "max_uses": 2}]}, (5, 3)),
        ({"tools": [{"type": "web_search"}, {"type": "file_search"}]}, (20, 10)),
        ({"tools": [EDITOR, FUNCTION, {"name": "own", "input_schema": {}}]}, (0, 0)),
        ({"web_search_options": {}}, (10, 10)),
        ({"tools": "none"}, (0, 0)),
    ],
)
def test_tools_that_the_provider_runs_are_seen(body: dict[str, Any], found: tuple[int, int]) -> None:
    assert hosted(body) == found


def test_what_a_provider_searches_for_itself_is_held(start_gateway: StartGateway) -> None:
    usage = {"input_tokens": 20_000, "output_tokens": 5, "server_tool_use": {"web_search_requests": 3}}
    told = {"type": "message", "content": [{"type": "text", "text": "x"}], "usage": usage}
    theirs = {"url": "http://127.0.0.1:9/v1", "protocol": "anthropic"}
    price = PRICE | {"usd_per_search": "0.01"}
    gateway = start_gateway({"echo": TellingUpstream(told)}, echo={"upstream": theirs, "price": price})
    cost = 20_000 * IN + 5 * OUT + 3 * 10**10
    asked = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    assert not fits(gateway, "/v1/messages", cost - 1, json=asked | {"tools": [SEARCH]})
    assert fits(gateway, "/v1/messages", 2 * cost, json=asked | {"tools": [SEARCH]})
    assert fits(gateway, "/v1/messages", cost // 10, json=asked | {"tools": [EDITOR]})
    assert {row["amount_pico_usd"] for row in gateway.ledger() if row["rule"] == "usage"} == {cost}
    assert "trilith_reservation_exceeded_total{kind" in gateway.platform.metrics.text().decode()


def test_a_query_is_read_again_with_every_document(start_gateway: StartGateway) -> None:
    usage = {"prompt_tokens": 20 * 301, "total_tokens": 20 * 301}
    gateway = start_gateway(
        {"order": TellingUpstream({"results": [], "usage": usage})},
        order={"kind": "rerank", "price": {"input_usd_per_mtok": "1"}},
    )
    asked = {"model": "order", "query": "word " * 300, "documents": ["a"] * 20}
    assert not fits(gateway, "/v1/rerank", 20 * 301 * IN - 1, json=asked)
    assert fits(gateway, "/v1/rerank", 10 * 20 * 301 * IN, json=asked)


@pytest.mark.parametrize("streamed", [False, True])
def test_searches_that_a_response_tells_of_are_charged(start_gateway: StartGateway, streamed: bool) -> None:
    call = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    said = {"type": "message", "content": [{"type": "output_text", "text": "x"}]}
    usage = {"input_tokens": 10, "output_tokens": 5}
    whole = {"id": "r", "status": "completed", "output": [call, said, call], "usage": usage}
    told: Any = [event({"type": "response.completed", "response": whole})] if streamed else whole
    gateway = start_gateway(
        {"echo": TellingUpstream(told)}, echo={"price": PRICE | {"usd_per_search": "0.01"}}
    )
    asked = {"model": "echo", "input": "x", "tools": [{"type": "web_search"}], "stream": streamed}
    with gateway.client() as client:
        assert client.post("/v1/responses", json=asked).status_code == 200
    (row,) = gateway.ledger()
    assert (row["searches"], row["amount_pico_usd"]) == (2, 10 * IN + 5 * OUT + 2 * 10**10)


def test_a_rerank_that_tells_no_usage_is_estimated_with_its_query_for_every_document(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(
        {"order": TellingUpstream({"results": []})},
        order={"kind": "rerank", "price": {"input_usd_per_mtok": "1"}},
    )
    asked = {"model": "order", "query": "word " * 300, "documents": ["a"] * 20}
    assert fits(gateway, "/v1/rerank", 20 * 1500 * IN, json=asked) is False
    assert fits(gateway, "/v1/rerank", 10**12, json=asked)
    (row,) = [row for row in gateway.ledger() if row["rule"] == "estimate"]
    assert 20 * 1500 // 3 <= row["input_tokens"] <= 21 * 1600 // 3


def test_speech_that_is_priced_by_the_token_counts_as_it_was_reserved(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"voice": TellingUpstream({})}, voice={"kind": "audio", **TOKENS})
    asked = {"model": "voice", "input": "häy", "voice": "x"}
    most = 4 * 5 * IN + 3 * 8 * 40 * IN
    assert not fits(gateway, "/v1/audio/speech", most - 1, json=asked)
    token = gateway.mint(budget_pico_usd=2 * most - 1)
    with gateway.client(token=token) as client:
        statuses = [client.post("/v1/audio/speech", json=asked).status_code for _ in range(2)]
    assert statuses == [200, 429]
    (row,) = gateway.ledger()
    assert (row["rule"], row["amount_pico_usd"], row["characters"]) == ("unpriced", None, 3)
