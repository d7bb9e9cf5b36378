"""A model with a queue, over HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream
from trilith_gateway.routing.gate import Gate

BODY = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}


def gate(gateway: Gateway, model: str = "echo") -> Gate:
    release = gateway.platform.releases.find(model)
    assert release is not None
    assert release.gate is not None
    return release.gate


def until(gateway: Gateway, open_calls: int, waiting: int) -> None:
    end = time.monotonic() + 20
    while (gate(gateway).open, gate(gateway).waiting) != (open_calls, waiting):
        assert time.monotonic() < end, (gate(gateway).open, gate(gateway).waiting)
        time.sleep(0.005)


@pytest.mark.parametrize("stream", [False, True])
def test_calls_wait_their_turn_and_all_are_answered(start_gateway: StartGateway, stream: bool) -> None:
    echo = MemoryUpstream("one two three", delay_s=0.01)
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 2, "queue_length": 20})
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: gateway.chat(stream=stream), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert sum("x-trilith-queue-ms" in answer.headers for answer in answers) >= 1
    assert len(gateway.ledger()) == 12
    until(gateway, 0, 0)
    waited = sum("x-trilith-queue-ms" in answer.headers for answer in answers)
    with gateway.client() as client:
        assert f'trilith_queued_total{{kind="chat",model="echo"}} {waited}.0' in client.get("/metrics").text


def test_a_full_queue_is_told_with_retry_after_and_costs_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(delay_s=3)}, echo={"max_concurrency": 1, "queue_length": 0}
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        refused = gateway.chat()
        assert first.result().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert sorted(row["rule"] for row in gateway.ledger()) == ["failed", "usage"]
    assert gateway.rows("select * from reservations") == []


def test_a_full_model_falls_back(start_gateway: StartGateway) -> None:
    upstreams = {"echo": MemoryUpstream(delay_s=0.3), "spare": MemoryUpstream("from spare")}
    described = {"max_concurrency": 1, "queue_length": 0, "fallbacks": ["spare"]}
    gateway = start_gateway(upstreams, echo=described)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        assert gateway.chat().headers["x-trilith-fallback"] == "spare"
        assert first.result().status_code == 200
    until(gateway, 0, 0)


def test_a_caller_that_hangs_up_leaves_the_queue_at_once_and_reaches_no_upstream(
    start_gateway: StartGateway,
) -> None:
    echo = MemoryUpstream(delay_s=1)
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        headers = {"authorization": f"Bearer {gateway.token}"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers=headers, timeout=0.1)
        until(gateway, 1, 0)
        assert first.result().status_code == 200
    assert len(echo.calls) == 1
    until(gateway, 0, 0)


def test_a_deadline_bounds_the_wait_too(start_gateway: StartGateway) -> None:
    echo = MemoryUpstream(delay_s=2)
    gateway = start_gateway({"echo": echo}, echo={"max_concurrency": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gateway.chat)
        until(gateway, 1, 0)
        with gateway.client() as client:
            late = client.post("/v1/chat/completions", json=BODY, headers={"x-request-timeout-ms": "100"})
        assert not first.done()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert gate(gateway).waiting == 0
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
