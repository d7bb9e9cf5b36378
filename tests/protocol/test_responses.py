"""OpenAI's responses, passed through to upstreams that speak them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gateway import StartGateway

from trilith.seams import Call
from trilith.settings.policy import PiiSettings
from trilith.testing import MemoryUpstream, PatternScanner
from trilith.testing.upstream import MemoryReply
from trilith_governance import Protection, ResponseStreamRestorer, mask_response

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}


class Responder(MemoryUpstream):
    """Answers in the responses protocol, streams in pieces of three signs."""

    def __init__(self, text: str = "hello") -> None:
        super().__init__()
        self.text = text

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        body = json.loads(call.body)
        part = {"type": "output_text", "text": self.text, "annotations": []}
        said = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
        whole: dict[str, Any] = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": "completed",
            "output": [said],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": USAGE,
        }
        if not body.get("stream"):
            return MemoryReply(200, _parts(json.dumps(whole).encode()))
        place = {"item_id": "m", "output_index": 0, "content_index": 0}
        empty = {**said, "content": []}
        pieces = [self.text[at : at + 3] for at in range(0, len(self.text), 3)]
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": {**whole, "output": [], "status": "in_progress"}},
            {"type": "response.output_item.added", "output_index": 0, "item": empty},
            {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
            *({"type": "response.output_text.delta", **place, "delta": p, "logprobs": []} for p in pieces),
            {"type": "response.output_text.done", **place, "text": self.text, "logprobs": []},
            {"type": "response.content_part.done", **place, "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": said},
            {"type": "response.completed", "response": whole},
        ]
        events = [{**event, "sequence_number": at} for at, event in enumerate(events)]
        lines = [
            f"event: {e['type']}\ndata: {json.dumps(e, separators=(',', ':'))}\n\n".encode() for e in events
        ]
        return MemoryReply(200, _parts(*lines), content_type="text/event-stream")


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_passed_through_and_charged(start_gateway: StartGateway, stream: bool) -> None:
    upstream = Responder()
    gateway = start_gateway({"echo": upstream})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as client:
        if stream:
            events = list(client.responses.create(model="echo", input="hi", stream=True))
            assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "hello"
            assert events[-1].type == "response.completed"
        else:
            assert client.responses.create(model="echo", input="hi").output_text == "hello"
    (row,) = gateway.ledger()
    counts = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    assert [row["rule"], *(row[name] for name in counts)] == ["usage", 7, 2, 5, 1]
    assert json.loads(upstream.calls[0].body)["max_output_tokens"] == 1024


@pytest.mark.parametrize("stream", [False, True])
def test_personal_data_is_masked_on_the_way_in_and_restored_on_the_way_out(
    start_gateway: StartGateway, stream: bool
) -> None:
    upstream = Responder("Dear <PERSON_1>, hello")
    gateway = start_gateway({"echo": upstream}, echo={"policy": "private"})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as client:
        ask: Any = {
            "model": "echo",
            "instructions": "You speak with Ada Lovelace.",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "I am Ada Lovelace"}]}],
        }
        if stream:
            with client.responses.stream(**ask) as events:
                deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
                answer: Any = events.get_final_response()
            assert "".join(deltas) == "Dear Ada Lovelace, hello"
        else:
            answer = client.responses.create(**ask)
    assert answer.output_text == "Dear Ada Lovelace, hello"
    sent = upstream.calls[0].body
    assert b"Lovelace" not in sent
    assert sent.count(b"<PERSON_1>") == 2


def test_calls_of_functions_in_a_response_get_their_own_data_back() -> None:
    shield = Protection(PatternScanner(names=["Ada Lovelace"]), PiiSettings())
    masked = mask_response(
        {
            "model": "m",
            "user": "ada",
            "input": [
                {
                    "type": "function_call",
                    "call_id": "c",
                    "name": "f",
                    "arguments": '{"who": "Ada Lovelace"}',
                },
                {"type": "function_call_output", "call_id": "c", "output": "Ada Lovelace is here"},
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Ada Lovelace asks"}]},
            ],
        },
        shield,
    )
    assert "Lovelace" not in json.dumps(masked)
    assert "user" not in masked
    restorer = ResponseStreamRestorer(shield)
    place = {"item_id": "i", "output_index": 0}
    stem = "response.function_call_arguments"
    pieces = ['{"who": "<PER', "SON", '_1>"}']
    events: list[dict[str, Any]] = [
        {"type": f"{stem}.delta", "delta": piece, "sequence_number": at, **place}
        for at, piece in enumerate(pieces)
    ]
    events.append({"type": f"{stem}.done", "arguments": "".join(pieces), "sequence_number": 3, **place})
    made = [found for event in events for found in restorer.feed(event)]
    assert "".join(event.get("delta", "") for event in made) == '{"who": "Ada Lovelace"}'
    assert json.loads(made[-1]["arguments"]) == {"who": "Ada Lovelace"}


@given(st.lists(st.sampled_from(["<", "PERSON_1", ">", "<PERSON_1>", "x", "_"]), max_size=12))
def test_a_restored_stream_says_what_the_whole_would_say(pieces: list[str]) -> None:
    shield = Protection(PatternScanner(names=["Ada Lovelace"]), PiiSettings())
    shield.mask("Ada Lovelace")
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    stem = "response.output_text"
    events: list[dict[str, Any]] = [
        {"type": f"{stem}.delta", "delta": piece, "sequence_number": at, **place}
        for at, piece in enumerate(pieces)
    ]
    events.append({"type": f"{stem}.done", "text": "".join(pieces), "sequence_number": len(pieces), **place})
    restorer = ResponseStreamRestorer(shield)
    made = [found for event in events for found in restorer.feed(event)]
    assert "".join(event.get("delta", "") for event in made) == made[-1]["text"]
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
