"""A model with a queue, over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from support.gateway import Gateway, StartGateway

from trilith.seams import Call
from trilith.testing import MemoryReply, MemoryUpstream
from trilith_gateway.routing.gate import Gate

BODY = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}


class Held(MemoryUpstream):
    """Answers when it is let."""

    def __init__(self) -> None:
        super().__init__("one two three")
        self.let = threading.Event()

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        while not self.let.is_set():  # noqa: ASYNC110, another thread sets it
            await asyncio.sleep(0.002)
        self.calls.pop()
        return await super().send(call)


@pytest.fixture
def echo() -> Iterator[Held]:
    made = Held()
    yield made
    made.let.set()


def gate(gateway: Gateway, model: str = "echo") -> Gate:
    release = gateway.platform.releases.find(model)
    assert release is not None
    assert release.gate is not None
    return release.gate


def leaving(gateway: Gateway) -> socket.socket:
    """Send a request over a socket that can be closed at any moment."""
    body = json.dumps(BODY).encode()
    address = urlsplit(gateway.url)
    caller = socket.create_connection((address.hostname, address.port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}"
    caller.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return caller


def until(gateway: Gateway, open_calls: int, waiting: int) -> None:
    end = time.monotonic() + 20
    while (gate(gateway).open, gate(gateway).waiting) != (open_calls, waiting):
        assert time.monotonic() < end, (gate(gateway).open, gate(gateway).waiting)
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_wait_their_turn_and_all_are_answered(
    start_gateway: StartGateway, echo: Held, stream: bool
) -> None:
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 2, "queue_length": 20})
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(gateway.chat, stream=stream) for _ in range(12)]
        until(gateway, 2, 10)
        echo.let.set()
        answers = [one.result() for one in asked]
    assert {answer.status_code for answer in answers} == {200}
    assert sum("x-trilith-queue-ms" in answer.headers for answer in answers) == 10
    assert len(gateway.ledger()) == 12
    until(gateway, 0, 0)
    with gateway.client() as client:
        assert 'trilith_queued_total{kind="chat",model="echo"} 10.0' in client.get("/metrics").text


def test_a_full_queue_is_told_with_retry_after_and_costs_nothing(
    start_gateway: StartGateway, echo: Held
) -> None:
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 1, "queue_length": 0})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        refused = gateway.chat()
        echo.let.set()
        assert first.result().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert sorted(row["rule"] for row in gateway.ledger()) == ["failed", "usage"]
    assert gateway.rows("select * from reservations") == []


def test_a_full_model_falls_back(start_gateway: StartGateway, echo: Held) -> None:
    upstreams = {"echo": echo, "spare": MemoryUpstream("from spare")}
    described = {"max_concurrency": 1, "queue_length": 0, "fallbacks": ["spare"]}
    gateway = start_gateway(upstreams, echo=described)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        assert gateway.chat().headers["x-trilith-fallback"] == "spare"
        echo.let.set()
        assert first.result().status_code == 200
    until(gateway, 0, 0)


def test_a_caller_that_hangs_up_leaves_the_queue_at_once_and_reaches_no_upstream(
    start_gateway: StartGateway, echo: Held
) -> None:
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        caller = leaving(gateway)
        until(gateway, 1, 1)
        caller.close()
        until(gateway, 1, 0)
        echo.let.set()
        assert first.result().status_code == 200
    assert len(echo.calls) == 1
    until(gateway, 0, 0)


def test_a_deadline_bounds_the_wait_too(start_gateway: StartGateway, echo: Held) -> None:
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        with gateway.client() as client:
            late = client.post("/v1/chat/completions", json=BODY, headers={"x-request-timeout-ms": "100"})
        assert not first.done()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert gate(gateway).waiting == 0
        echo.let.set()
        assert first.result().status_code == 200
    assert len(echo.calls) == 1
    assert sorted(row["amount_pico_usd"] for row in gateway.ledger())[0] == 0
    until(gateway, 0, 0)


def test_a_failing_upstream_gives_its_place_back(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(fail_with=[500, 503, 429])}, echo={"max_concurrency": 1, "queue_length": 0}
    )
    assert [gateway.chat().status_code for _ in range(4)] == [500, 503, 429, 200]
    until(gateway, 0, 0)
