"""Requests without a task of their own: over real connections, to an upstream whose connections are kept."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from support.gateway import PRICE, Gateway, StartGateway
from support.scripted_server import Scripted, ScriptedServer, Serve

from trilith_gateway.stages.call import Begun
from trilith_gateway.upstream.http import HttpUpstream

ANSWER = {
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1},
}
JSON = {"content-type": "application/json"}
STREAM = {"content-type": "text/event-stream"}
OK = Scripted(body=ANSWER, headers=JSON)
EVENTS = [
    b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n',
    b'data: {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}\n\ndata: [DONE]\n\n',
]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start upstreams, each with its script."""
    with ExitStack() as stack:
        yield lambda *script: stack.enter_context(ScriptedServer(script))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool | None]:
    """Notes of each exchange that was waited for without a task whether its whole answer came so."""
    seen: list[bool | None] = []
    inner = Begun.take

    def take(begun: Any) -> bool | None:
        seen.append(inner(begun))
        return seen[-1]

    monkeypatch.setattr(Begun, "take", take)
    return seen


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def started(start_gateway: StartGateway, server: ScriptedServer, taken: list[bool | None]) -> Gateway:
    gateway = start_gateway({"echo": HttpUpstream(f"{server.url}/v1")})
    until(lambda: gateway.platform.warmed.is_set())
    server.received.clear()
    assert gateway.chat().status_code == 200  # from here on a connection is kept
    server.connections = 0
    taken.clear()
    return gateway


def rules(gateway: Gateway) -> list[tuple[str, int, int]]:
    return [(row["rule"], row["status"], row["amount_pico_usd"]) for row in gateway.ledger()]


def test_an_answer_over_a_kept_connection_needs_no_task_and_is_charged_like_any(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    server = serve(OK)
    gateway = started(start_gateway, server, taken)
    answer = gateway.chat()
    assert (answer.status_code, answer.json()) == (200, ANSWER)
    assert (taken[-1], server.connections) == (True, 0)
    first, second = rules(gateway)
    assert first == second == ("usage", 200, 2 * 1_000_000 + 3_000_000)
    until(lambda: gateway.platform.metrics.open == 0)
    assert gateway.rows("select * from reservations") == []


def test_an_error_of_the_upstream_passes_and_costs_nothing(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    refusal = {"error": {"message": "no", "type": "t", "code": "c", "param": None}}
    gateway = started(start_gateway, serve(OK, Scripted(429, refusal, {**JSON, "retry-after": "3"})), taken)
    answer = gateway.chat()
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, refusal, "3")
    assert (taken[-1], rules(gateway)[1]) == (True, ("failed", 429, 0))


def test_a_redirect_is_an_error_and_the_connection_is_of_use_again(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    server = serve(OK, Scripted(302, b"", {"location": "http://127.0.0.1:1/"}), OK)
    gateway = started(start_gateway, server, taken)
    assert gateway.chat().status_code == 502
    assert gateway.chat().status_code == 200
    assert server.connections == 0


def test_a_stream_is_handed_to_a_task_with_what_has_come_of_it(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    gateway = started(start_gateway, serve(OK, Scripted(headers=STREAM, parts=EVENTS)), taken)
    told = gateway.chat(stream=True).text
    assert (told.count('"hi"'), told.count("[DONE]"), taken) == (1, 1, [False])
    assert rules(gateway)[1] == ("usage", 200, 2 * 1_000_000 + 3_000_000)


def test_a_body_in_parts_is_read_to_its_end(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    raw = json.dumps(ANSWER).encode()

    def slowly() -> Iterator[bytes]:
        yield raw[:20]
        time.sleep(0.05)
        yield raw[20:]

    gateway = started(start_gateway, serve(OK, Scripted(headers=JSON, parts=slowly())), taken)
    assert gateway.chat().json() == ANSWER
    assert taken[0] is None
    assert taken[-1] is True
    assert rules(gateway)[1] == ("usage", 200, 2 * 1_000_000 + 3_000_000)


def test_a_kept_connection_that_was_closed_is_replaced(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    server = serve(OK, Scripted(parts=[], breaks=True), OK)
    gateway = started(start_gateway, server, taken)
    gateway.chat()
    assert gateway.chat().status_code == 200
    until(lambda: gateway.platform.metrics.open == 0)


def test_a_caller_who_leaves_stops_the_upstream_and_the_books_are_closed(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    server = serve(OK, Scripted(body=ANSWER, headers=JSON, delay_s=1.0))
    gateway = started(start_gateway, server, taken)
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "x"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n"
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as caller:
        caller.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: len(server.received) == 2)
        assert gateway.platform.metrics.open == 1
    until(lambda: gateway.platform.metrics.open == 0)
    assert rules(gateway)[1] == ("aborted", 499, 0)
    assert gateway.rows("select * from reservations") == []
    assert server.left.wait(10)
    assert taken == []


def test_what_cannot_be_recorded_is_not_answered(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = started(start_gateway, serve(OK), taken)

    def full(record: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gateway.platform.store._journal, "append", full)
    refused = gateway.chat()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    monkeypatch.undo()
    assert gateway.chat().status_code == 200
    until(lambda: gateway.platform.metrics.open == 0)


def test_a_fault_within_a_stage_breaks_neither_the_connection_nor_the_upstreams(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(OK)
    gateway = started(start_gateway, server, taken)

    def broken(begun: object) -> bool:
        raise RuntimeError("canary")

    monkeypatch.setattr(Begun, "take", broken)
    failed = gateway.chat()
    assert failed.status_code == 500
    assert "canary" not in failed.text
    monkeypatch.undo()
    assert gateway.chat().status_code == 200
    assert server.connections == 0


def test_an_answer_that_had_begun_when_its_caller_left_is_charged_by_what_was_asked(
    start_gateway: StartGateway, serve: Serve, taken: list[bool | None]
) -> None:
    """As it is where a task waits for it."""
    left = threading.Event()

    def begun() -> Iterator[bytes]:
        yield b'{"data": '
        left.wait(10)

    server = serve(OK, Scripted(headers=JSON, parts=begun()))
    price = {**PRICE, "usd_per_image": "0.04"}
    model = {"kind": "image", "upstream": {"url": f"{server.url}/v1"}, "price": price}
    gateway = start_gateway({}, echo=model)
    until(lambda: gateway.platform.warmed.is_set())
    server.received.clear()
    with gateway.client() as client:
        assert client.post("/v1/images/generations", json={"model": "echo", "prompt": "x"}).status_code == 200
        with contextlib.suppress(httpx.ReadTimeout):
            client.post("/v1/images/generations", json={"model": "echo", "prompt": "x"}, timeout=0.5)
    until(lambda: gateway.platform.metrics.open == 0)
    left.set()
    assert taken[-1] is None
    assert rules(gateway)[1] == ("aborted", 499, 40_000_000_000)
