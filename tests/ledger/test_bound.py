"""What is reserved is never less than what a request can cost, also where it only refers to things."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from support.gateway import StartGateway
from support.told import TellingUpstream, answer

from trilith_gateway.api import OPERATIONS, Api
from trilith_gateway.media import _seconds
from trilith_gateway.request import references

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
    gateway = start_gateway({"echo": TellingUpstream(told)}, echo={"price": PRICE})
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
