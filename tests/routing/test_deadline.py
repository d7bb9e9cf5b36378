"""Deadlines: from the caller through retries and fallbacks to the upstream, and what a passed one is."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway
from support.scripted_server import Scripted, Serve

from trilith import Client
from trilith.errors import APIConnectionError, APITimeoutError
from trilith.seams import Call
from trilith.testing import MemoryUpstream
from trilith_gateway import deadline
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.stages.route import Route
from trilith_gateway.upstream.http import HttpUpstream

ANSWER = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}
JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream"}


def ask(gateway: Gateway, headers: dict[str, str], **fields: Any) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], **fields}
    with gateway.client(headers=headers) as client:
        return client.post("/v1/chat/completions", json=body)


@pytest.mark.parametrize("name", ["x-request-timeout-ms", "x-stainless-read-timeout"])
def test_a_passed_deadline_is_a_504_and_the_upstreams_work_is_aborted(
    start_gateway: StartGateway, name: str
) -> None:
    slow = MemoryUpstream(delay_s=60)
    gateway = start_gateway({"echo": slow})
    answer = ask(gateway, {name: "100" if name.endswith("ms") else "0.1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    assert answer.headers["x-should-retry"] == "false"
    assert (len(slow.calls), slow.aborted) == (1, 1)
    assert [(row["rule"], row["amount_pico_usd"]) for row in gateway.ledger()] == [("failed", 0)]


def test_over_http_the_upstream_sees_its_caller_leave(start_gateway: StartGateway, serve: Serve) -> None:
    server = serve(Scripted(headers=STREAM, parts=[b'data: {"choices": []}\n\n'], stays=True))
    gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")})
    told = ask(gateway, {"x-request-timeout-ms": "400"}, stream=True).text
    last = json.loads(told.rstrip().rpartition("data: ")[2])
    assert last["error"]["code"] == "timeout"
    assert "[DONE]" not in told
    assert server.left.wait(10)


def test_a_read_timeout_bounds_a_streams_silence_not_its_length(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(" ".join(["word"] * 30), delay_s=0.05)})
    told = ask(gateway, {"x-stainless-read-timeout": "0.7"}, stream=True).text
    assert told.endswith("data: [DONE]\n\n")


def test_what_is_left_is_told_to_the_upstream_if_the_caller_set_a_bound(
    start_gateway: StartGateway, serve: Serve
) -> None:
    server = serve(Scripted(body=ANSWER, headers=JSON))
    gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")})
    assert ask(gateway, {"x-request-timeout-ms": "20000"}).status_code == 200
    assert ask(gateway, {}).status_code == 200
    sent = [request.headers for request in server.received if request.method == "POST"]
    bound, free = (headers.get("x-request-timeout-ms") for headers in sent)
    assert 0 < int(bound or 0) <= 20_000
    assert free is None


def test_a_fallback_has_no_more_than_what_is_left(start_gateway: StartGateway) -> None:
    class Late(MemoryUpstream):
        async def send(self, call: Call) -> Any:
            self.calls.append(call)
            raise APIConnectionError("away")

    late, other = Late(), MemoryUpstream()
    gateway = start_gateway({"echo": late, "other": other}, echo={"fallbacks": ["other"]})
    assert ask(gateway, {"x-request-timeout-ms": "5000"}).status_code == 200
    lefts = [int(call.headers["x-request-timeout-ms"]) for call in (*late.calls, *other.calls)]
    assert lefts == sorted(lefts, reverse=True)
    assert other.calls[0].timeout_s < late.calls[0].timeout_s <= 5


def test_time_spent_before_the_route_counts_too() -> None:
    exchange = Exchange(Api.CHAT, "/", {"x-request-timeout-ms": "50"}, lambda _: b"")
    exchange.clock = time.perf_counter() - 1
    with pytest.raises(APITimeoutError):
        Route(600)._left(exchange)


@pytest.mark.parametrize("value", ["0", "-5", "soon", "nan", "inf", ""])
def test_a_bound_that_is_none_is_refused(start_gateway: StartGateway, value: str) -> None:
    answer = ask(start_gateway({"echo": MemoryUpstream()}), {"x-request-timeout-ms": value})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("headers", "stream", "whole", "head"),
    [
        ({}, False, None, None),
        ({"x-request-timeout-ms": "1500"}, True, 1.5, 1.5),
        ({"x-stainless-read-timeout": "600"}, False, 600, 600),
        ({"x-stainless-read-timeout": "600.0"}, True, None, 600),
        ({"x-stainless-read-timeout": "2", "x-request-timeout-ms": "9000"}, True, 9, 2),
        ({"x-stainless-read-timeout": "2", "x-request-timeout-ms": "1000"}, False, 1, 1),
        ({"x-stainless-read-timeout": "None"}, False, None, None),
    ],
)
def test_what_callers_say_is_read(
    headers: dict[str, str], stream: bool, whole: float | None, head: float | None
) -> None:
    assert deadline.read(headers, stream=stream) == (whole, head)


def test_our_client_tells_its_own_timeout(serve: Serve) -> None:
    server = serve(Scripted(body=ANSWER | {"created": 1, "model": "m", "object": "chat.completion"}))
    with Client(server.url, api_key="k", timeout_s=12.5) as client:
        messages = [{"role": "user", "content": "hi"}]
        client.chat.completions.create(model="m", messages=messages)
        client.chat.completions.create(model="m", messages=messages, timeout_s=3)
    assert [request.headers["x-request-timeout-ms"] for request in server.received] == ["12500", "3000"]


def test_our_client_bounds_a_streams_silence(serve: Serve) -> None:
    server = serve(Scripted(headers=STREAM, parts=[b"data: [DONE]\n\n"]))
    with Client(server.url, api_key="k", timeout_s=7) as client:
        assert not list(client.chat.completions.create(model="m", messages=[], stream=True))
    sent = server.received[0].headers
    assert sent["x-stainless-read-timeout"] == "7"
    assert "x-request-timeout-ms" not in sent
