"""An upstream that tells of its failure within a stream, as vLLM does, then ends it as if all were well."""

from __future__ import annotations

from typing import Any

import pytest
from support.gateway import StartGateway
from support.scripted_server import Scripted, ScriptedServer

from trilith_gateway.upstream.http import HttpUpstream

SAID = b'data: {"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
FAILED = b'data: {"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}}\n\n'
DONE = b"data: [DONE]\n\n"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("parts", [[SAID, FAILED, DONE], [SAID + FAILED + DONE]])
@pytest.mark.parametrize(
    ("path", "body", "ends", "failure"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": MESSAGES}, b"message_stop", b"event: error\n"),
        ("/v1/responses", {"input": "hi"}, b"response.completed", b'\n\ndata: {"error"'),
    ],
)
def test_it_is_told_in_the_callers_protocol_and_is_no_end(
    start_gateway: StartGateway,
    path: str,
    body: dict[str, Any],
    ends: bytes,
    failure: bytes,
    parts: list[bytes],
) -> None:
    chats = {"upstream": {"url": "http://127.0.0.1:1/v1", "protocol": "chat"}}
    with ScriptedServer([Scripted(headers={"content-type": "text/event-stream"}, parts=parts)]) as server:
        gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")}, echo=chats)
        with gateway.client() as client:
            told = client.post(path, json={"model": "echo", "stream": True, **body}).content
    assert b'"x"' in told
    assert failure in told
    assert b"out of memory" in told
    assert ends not in told
    assert [row["rule"] for row in gateway.ledger()] == ["broken"]
