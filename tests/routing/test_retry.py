"""How often one request is sent at most, all of those counted who send it again on their own."""

from __future__ import annotations

import pytest
from support.gateway import StartGateway
from support.scripted_server import Scripted, Serve

from trilith.errors import APIConnectionError
from trilith.seams import Call
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.upstream.http import HttpUpstream

ANSWER = Scripted(body={"choices": []}, headers={"content-type": "application/json"})
CALL = Call("/v1/chat/completions", b"{}", timeout_s=30)


def test_a_request_over_a_kept_connection_is_sent_twice_and_never_more(
    start_gateway: StartGateway, serve: Serve
) -> None:
    server = serve(ANSWER)
    gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")})
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
    with gateway.client() as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        server.script = [Scripted(hangs_up=True)]
        server.received.clear()
        assert client.post("/v1/chat/completions", json=body).status_code == 502
    assert len(server.received) == 2


def test_nothing_is_said_after_the_end_of_a_stream_though_its_connection_breaks(
    start_gateway: StartGateway, serve: Serve
) -> None:
    said = b'data: {"id": "a", "choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
    stream = {"content-type": "text/event-stream"}
    server = serve(Scripted(headers=stream, parts=[said, b"data: [DONE]\n\n"], breaks=True))
    gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")})
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    with gateway.client() as client:
        told = client.post("/v1/chat/completions", json=body).content
    assert told == said + b"data: [DONE]\n\n"
    assert [row["rule"] for row in gateway.ledger()] != ["broken"]


@pytest.mark.parametrize(("attempts", "sends"), [(2, 3), (3, 4)])
async def test_replicas_send_a_request_as_often_as_it_may_be_tried_and_once_more_for_a_connection_gone_stale(
    serve: Serve, attempts: int, sends: int
) -> None:
    servers = [serve(ANSWER, ANSWER, Scripted(hangs_up=True)) for _ in range(2)]
    upstreams = [HttpUpstream(f"{server.url}/v1") for server in servers]
    endpoints = [Endpoint(str(at), upstream) for at, upstream in enumerate(upstreams)]
    routed = RoutedUpstream(endpoints, policy.weighted, limits=Limits(attempts=attempts, retry_share=1))
    for upstream in upstreams:  # each keeps a connection
        for _ in range(2):
            assert b"".join([part async for part in (await upstream.send(CALL)).chunks()])
    with pytest.raises(APIConnectionError):
        await routed.send(CALL)
    assert sum(len(server.received) for server in servers) == 4 + sends
    await routed.aclose()
