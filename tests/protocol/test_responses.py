"""OpenAI's responses, passed through to upstreams that speak them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from support.gateway import StartGateway

from trilith.seams import Call
from trilith.testing import MemoryUpstream
from trilith.testing.upstream import MemoryReply

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 12,
}


class Responder(MemoryUpstream):
    """Answers in the responses protocol."""

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        body = json.loads(call.body)
        part = {"type": "output_text", "text": "hello", "annotations": []}
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
        events = [
            {"type": "response.output_text.delta", "delta": "hello", "item_id": "m", "sequence_number": 1},
            {"type": "response.completed", "response": whole, "sequence_number": 2},
        ]
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
            assert [event.type for event in events] == ["response.output_text.delta", "response.completed"]
        else:
            assert client.responses.create(model="echo", input="hi").output_text == "hello"
    (row,) = gateway.ledger()
    counts = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    assert [row["rule"], *(row[name] for name in counts)] == ["usage", 7, 2, 5, 1]
    assert json.loads(upstream.calls[0].body)["max_output_tokens"] == 1024


def test_a_protected_model_refuses_what_it_cannot_look_into(start_gateway: StartGateway) -> None:
    upstream = Responder()
    gateway = start_gateway({"echo": upstream}, echo={"policy": "private"})
    with gateway.client() as client:
        refused = client.post("/v1/responses", json={"model": "echo", "input": "I am Ada Lovelace"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "policy_unsupported")
    assert not upstream.calls
