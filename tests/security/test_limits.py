"""What one request may take: size, depth, numbers, and memory while its caller does not read."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.eval_run import FINDING, told
from support.gateway import Gateway
from support.installed import Platform
from support.scripted_server import Scripted, ScriptedServer
from support.world import world

from trilith_gateway import request


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with world(tmp_path_factory.mktemp("world")) as running:
        yield running


def nested(depth: int, inside: str = "1") -> str:
    return "[" * depth + inside + "]" * depth


BODIES: dict[str, tuple[str, Callable[[str], bytes]]] = {
    "a chat": (
        "/v1/chat/completions",
        lambda bomb: f'{{"model":"chat","messages":[{{"role":"user","content":"x"}}],"x":{bomb}}}'.encode(),
    ),
    "a chat's content": (
        "/v1/chat/completions",
        lambda bomb: f'{{"model":"chat","messages":[{{"role":"user","content":{bomb}}}]}}'.encode(),
    ),
    "a guarded chat": (
        "/v1/chat/completions",
        lambda bomb: f'{{"model":"guarded","messages":[{{"role":"user","content":{bomb}}}]}}'.encode(),
    ),
    "a chat whose answer is kept": (
        "/v1/chat/completions",
        lambda bomb: f'{{"model":"kept","messages":[{{"role":"user","content":{bomb}}}]}}'.encode(),
    ),
    "a tool's arguments": (
        "/v1/chat/completions",
        lambda bomb: json.dumps(
            {
                "model": "guarded",
                "messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": bomb}}]}],
            }
        ).encode(),
    ),
    "a message": (
        "/v1/messages",
        lambda bomb: (
            f'{{"model":"chat","max_tokens":5,"messages":[{{"role":"user","content":"x"}}],"x":{bomb}}}'.encode()
        ),
    ),
    "an input": ("/v1/embeddings", lambda bomb: f'{{"model":"vectors","input":{bomb}}}'.encode()),
    "a tensor": (
        "/v2/models/bikes/infer",
        lambda bomb: f'{{"inputs":[{{"name":"a","shape":[1],"datatype":"FP64","data":{bomb}}}]}}'.encode(),
    ),
    "a table": ("/invocations", lambda bomb: f'{{"instances":{bomb}}}'.encode()),
    "a run of suites": (
        "/admin/v1/evals/runs",
        lambda bomb: (
            json.dumps(told()).replace('"parameters": {}', f'"parameters": {{"x": {bomb}}}').encode()
        ),
    ),
    "a finding's causes": (
        "/admin/v1/evals/monitors",
        lambda bomb: json.dumps({**FINDING, "causes": [{"x": "BOMB"}]}).replace('"BOMB"', bomb).encode(),
    ),
    "feedback": ("/v1/feedback", lambda bomb: f'{{"request_id":"r","x":{bomb}}}'.encode()),
}


@pytest.mark.parametrize("depth", [100, 249, 255, 600, 1020, 30_000])
@pytest.mark.parametrize("body", BODIES)
def test_no_depth_is_too_deep_to_be_answered_properly(gateway: Gateway, body: str, depth: int) -> None:
    path, make = BODIES[body]
    with gateway.client(token=gateway.mint(admin=True)) as client:
        answered = client.post(path, content=make(nested(depth, '"Ada Lovelace"')))
    assert answered.status_code in (200, 400), answered.text[:200]


@given(st.integers(1, 400), st.integers(0, 3), st.sampled_from(["[]", "{}"]))
@settings(max_examples=60, deadline=None)
def test_a_body_is_read_exactly_when_it_can_be_written_again(depth: int, wide: int, kind: str) -> None:
    opened, closed = ("[", "]") if kind == "[]" else ('{"a":', "}")
    inner = ",".join(["[0]"] * wide)
    raw = f'{{"a":{opened * depth}[{inner}]{closed * depth}}}'.encode()
    deepest = 2 + depth + (1 if wide else 0)
    if deepest <= request.MOST_DEPTH:
        assert request.decode(raw)
    else:
        with pytest.raises(Exception, match="levels deep"):
            request.decode(raw)


NUMBERS = [
    "1e400",
    "-1e400",
    "1" + "0" * 5000,
    "99999999999999999999",
    "1e30",
    "NaN",
    "Infinity",
    "1e-400",
    "0.1",
    "-1",
    "true",
]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    "field", ["max_tokens", "n", "max_completion_tokens", "best_of", "temperature", "seed"]
)
@pytest.mark.parametrize("model", ["chat", "kept"])
def test_no_number_breaks_anything(gateway: Gateway, model: str, field: str, number: str) -> None:
    raw = f'{{"model":"{model}","messages":[{{"role":"user","content":"x"}}],"{field}":{number}}}'
    with gateway.client() as client:
        answered = client.post("/v1/chat/completions", content=raw.encode())
    assert answered.status_code in (200, 400), answered.text


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["duration_s", "cases", "planned_rows", "looks", "min_coverage"])
def test_no_number_in_a_run_breaks_anything(gateway: Gateway, field: str, number: str) -> None:
    run = told()
    run["suites"][0][field] = "NUMBER"
    raw = json.dumps(run).replace('"NUMBER"', number)
    with gateway.client(token=gateway.mint(admin=True)) as client:
        answered = client.post("/admin/v1/evals/runs", content=raw.encode())
        assert answered.status_code in (200, 400), answered.text
        if answered.status_code == 200:
            id = answered.json()["id"]
            assert client.get(f"/admin/v1/evals/runs/{id}/report").status_code == 200
            assert client.get("/admin/v1/evals/runs").status_code == 200


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["start", "end", "value", "n"])
def test_no_number_in_a_finding_breaks_anything(gateway: Gateway, field: str, number: str) -> None:
    raw = json.dumps({**FINDING, field: "NUMBER"}).replace('"NUMBER"', number)
    with gateway.client(token=gateway.mint(admin=True)) as client:
        answered = client.post("/admin/v1/evals/monitors", content=raw.encode())
        assert answered.status_code in (200, 400), answered.text
        assert client.get("/admin/v1/evals/monitors").status_code == 200


@pytest.mark.parametrize("shape", [[2**62, 2**62], [10**6, 11], [-1], [1.0], [True], ["1"], [None], []])
def test_a_shape_that_promises_too_much_is_refused(gateway: Gateway, shape: list[Any]) -> None:
    tensor = {"name": "a", "shape": shape, "datatype": "FP64", "data": [1]}
    with gateway.client() as client:
        assert client.post("/v2/models/bikes/infer", json={"inputs": [tensor]}).status_code == 400


@pytest.mark.parametrize(
    "field",
    [
        {"score": True},
        {"score": "1"},
        {"label": "a\0b"},
        {"comment": "\0"},
        {"label": "x" * 201},
        {"more": 1},
    ],
)
def test_feedback_that_no_database_would_keep_is_refused(gateway: Gateway, field: dict[str, Any]) -> None:
    with gateway.client() as client:
        body = {"model": "chat", "messages": [{"role": "user", "content": "x"}]}
        id = client.post("/v1/chat/completions", json=body).headers["x-request-id"]
        assert client.post("/v1/feedback", json={"request_id": id, **field}).status_code == 400


def test_many_messages_are_as_good_as_few(gateway: Gateway) -> None:
    messages = [{"role": "user", "content": "x"}] * 50_000
    with gateway.client() as client:
        answered = client.post("/v1/chat/completions", json={"model": "chat", "messages": messages})
    assert answered.status_code == 200


PACKED: dict[str, bytes] = {
    "/v1/chat/completions": b'{"model":"chat","messages":[{"role":"user","content":"x"}]}',
    "/v1/chat/completions?by=asgi": b'{"model":"chat","messages":[{"role":"user","content":"x"}]}',
    "/v1/messages": b'{"model":"chat","max_tokens":5,"messages":[{"role":"user","content":"x"}]}',
    "/v2/models/bikes/infer": b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP64","data":[1]}]}',
    "/invocations": b'{"instances":[[1]]}',
    "/models/bikes/invocations": b'{"instances":[[1]]}',
}


@pytest.mark.parametrize("path", PACKED)
@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "compress", "deflate, gzip", "gzip, gzip", "x"])
def test_a_body_in_another_coding_than_gzip_is_refused_unread(
    gateway: Gateway, path: str, coding: str
) -> None:
    """The answer is there before a byte of the body has been sent."""
    host, port = gateway.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n"
    head += f"content-encoding: {coding}\r\ncontent-length: 100\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(13) == b"HTTP/1.1 415 "


@pytest.mark.parametrize("path", PACKED)
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
def test_a_gzipped_body_is_held_to_every_limit_of_a_plain_one(
    gateway: Gateway, path: str, coding: str
) -> None:
    packed = {
        200: gzip.compress(PACKED[path]),
        400: gzip.compress(nested(600).encode()),
        413: gzip.compress(b"[" * 10_000_000),
    }
    with gateway.client(headers={"content-encoding": coding}) as client:
        answered = {status: client.post(path, content=body).status_code for status, body in packed.items()}
    assert answered == {status: status for status in packed}


@pytest.mark.parametrize("path", PACKED)
def test_what_is_not_wholly_gzip_is_refused(gateway: Gateway, path: str) -> None:
    packed = gzip.compress(PACKED[path])
    with gateway.client(headers={"content-encoding": "gzip"}) as client:
        for body in (PACKED[path], packed[:-1], packed + packed, packed + b"{}", b"", packed[:10]):
            assert client.post(path, content=body).status_code == 400, body


def test_gzip_bombs_cost_bounded_memory(tmp_path: Path) -> None:
    """Eight callers send four bombs each, every one of which would come to more than all may take."""
    bomb = gzip.compress(b"[" * (96 * 1024 * 1024))
    statuses: list[int] = []

    def send(url: str, key: str) -> None:
        headers = {"authorization": f"Bearer {key}", "content-encoding": "gzip"}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            for _ in range(4):
                statuses.append(client.post("/v1/chat/completions", content=bomb).status_code)

    with ScriptedServer([Scripted(body={})]) as upstream:
        model = {"kind": "chat", "upstream": {"url": f"{upstream.url}/v1"}}
        platform = Platform(tmp_path, {"models": {"chat": model}, "telemetry": {"store_spans": False}})
        made = platform.command("keys", "create", "packer").split()
        key = next(word for word in made if word.startswith("tl_"))
        platform.start()
        assert platform.process is not None
        pid = platform.process.pid
        try:
            before = seen = memory(pid)
            senders = [threading.Thread(target=send, args=(platform.url, key)) for _ in range(8)]
            for sender in senders:
                sender.start()
            while any(sender.is_alive() for sender in senders):
                seen = max(seen, memory(pid))
                time.sleep(0.002)
        finally:
            assert platform.stop() == 0
    assert statuses == [413] * 32
    assert seen - before < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions?x=1",
        "/v1/chat/completions",
        "/v2/models/bikes/infer",
        "/invocations",
        "/admin/v1/evals/runs",
        "/admin/v1/evals/monitors",
    ],
)
def test_a_body_is_counted_as_it_comes_whatever_was_announced(gateway: Gateway, path: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 65_536

    with gateway.client(token=gateway.mint(admin=True)) as client:
        try:
            answered = client.post(path, content=endless())
        except httpx.WriteError:
            return  # the connection was closed on a caller who went on sending
    assert answered.status_code == 413


def test_an_unknown_models_name_is_not_repeated_at_length(gateway: Gateway) -> None:
    with gateway.client() as client:
        body = {"model": "x" * 1_000_000, "messages": [{"role": "user"}]}
        assert len(client.post("/v1/chat/completions", json=body).content) < 1000


def memory(pid: int) -> int:
    """Return a process's resident memory (bytes)."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096


def test_callers_that_do_not_read_cost_bounded_memory(tmp_path: Path) -> None:
    """Eight of them leave two gigabytes unread; the gateway reads no more than it can hand on."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 65_000)
    flood = Scripted(headers={"content-type": "text/event-stream"}, parts=[event] * 4000)
    with ScriptedServer([Scripted(body={})]) as upstream:
        model = {"kind": "chat", "upstream": {"url": f"{upstream.url}/v1"}}
        platform = Platform(tmp_path, {"models": {"flood": model}, "telemetry": {"store_spans": False}})
        made = platform.command("keys", "create", "slow").split()
        key = next(word for word in made if word.startswith("tl_"))
        platform.start()
        upstream.script = [flood]
        assert platform.process is not None
        before = memory(platform.process.pid)
        slow = []
        try:
            body = b'{"model":"flood","stream":true,"messages":[{"role":"user","content":"x"}]}'
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
            for _ in range(8):
                caller = socket.create_connection(("127.0.0.1", platform.port), timeout=30)
                caller.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                slow.append(caller)
                assert caller.recv(15) == b"HTTP/1.1 200 OK"
            seen = 0
            for _ in range(15):
                time.sleep(0.2)
                seen = max(seen, memory(platform.process.pid))
            assert seen - before < 48 * 1024 * 1024
        finally:
            for caller in slow:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                caller.close()
            assert platform.stop() == 0
