"""What a drop-in endpoint owes its clients, whatever they ask for."""

from __future__ import annotations

import gzip
import json
import re
import socket
import tracemalloc
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.errors import APIStatusError
from trilith.testing import MemoryUpstream
from trilith_gateway import packing

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
RAW = json.dumps(CHAT).encode()


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, upstream: MemoryUpstream) -> Gateway:
    window = {"context_tokens": 2048}
    return start_gateway({"echo": upstream, "org/model": upstream}, echo=window)


def raw(gateway: Gateway, head: bytes, *parts: bytes) -> bytes:
    """Send bytes; returns all that comes back until the gateway closes."""
    url = httpx.URL(gateway.url)
    with socket.create_connection((url.host, url.port or 80), timeout=10) as wire:
        wire.sendall(head.replace(b"KEY", gateway.token.encode()))
        got = b""
        for part in parts:
            if b"expect" in head.lower() and not got:
                got = wire.recv(100)
            wire.sendall(part)
        while data := wire.recv(65536):
            got += data
        return got


class TestPaths:
    @pytest.mark.parametrize("base", ["", "/v1"])
    def test_clients_whose_base_url_has_no_version_are_answered_alike(
        self, gateway: Gateway, base: str
    ) -> None:
        with gateway.client() as http:
            assert http.post(f"{base}/chat/completions", json=CHAT).status_code == 200
            assert http.get(f"{base}/models").json()["object"] == "list"
            assert http.get(f"{base}/models/org/model").json()["id"] == "org/model"
            assert http.get(f"{base}/files").json()["data"] == []
            assert http.get(f"{base}/batches").json()["data"] == []

    def test_it_says_that_it_lives_as_its_neighbours_do(self, gateway: Gateway) -> None:
        with httpx.Client(base_url=gateway.url) as stranger:
            for path in ("/health", "/livez"):
                answer = stranger.get(path)
                assert (answer.status_code, answer.content) == (200, b"")
            assert stranger.get("/version").status_code == 401
        with gateway.client() as http:
            assert set(http.get("/version").json()) == {"version"}

    def test_a_model_tells_its_window(self, gateway: Gateway) -> None:
        with gateway.client() as http:
            told = http.get("/v1/models/echo").json()
        assert (told["max_model_len"], told["root"], told["parent"]) == (2048, "echo", None)

    @pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/models", "/metrics"])
    def test_head_says_what_get_would_without_the_body(self, gateway: Gateway, path: str) -> None:
        with gateway.client() as http:
            got, head = http.get(path), http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["content-type"] == got.headers["content-type"]

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/v1/chat/completions", "OPTIONS, POST"),
            ("/chat/completions", "OPTIONS, POST"),
            ("/v1/models", "GET, HEAD, OPTIONS"),
            ("/models/org/model", "GET, HEAD, OPTIONS"),
            ("/models/echo/invocations", "OPTIONS, POST"),
            ("/v2/models/echo/infer", "OPTIONS, POST"),
            ("/v1/files", "GET, HEAD, OPTIONS, POST"),
        ],
    )
    def test_options_names_the_methods(self, gateway: Gateway, path: str, allowed: str) -> None:
        with gateway.client() as http:
            answer = http.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, allowed)

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/v1/nothing", 404, "unknown_url"),
            ("OPTIONS", "/v1/nothing", 404, "unknown_url"),
            ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
            ("GET", "/chat/completions", 405, "method_not_allowed"),
            ("GET", "/v1/files?limit=many", 400, None),
        ],
    )
    def test_errors_outside_the_pipeline_have_the_same_shape(
        self, gateway: Gateway, method: str, path: str, status: int, code: str | None
    ) -> None:
        with gateway.client() as http:
            answer = http.request(method, path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
        assert set(error) == {"message", "type", "param", "code"}

    def test_the_inference_protocols_errors_are_texts(self, gateway: Gateway) -> None:
        with gateway.client() as http:
            assert isinstance(http.get("/v2/nothing").json()["error"], str)


class TestHeaders:
    def test_answers_tell_who_when_and_how_long(self, gateway: Gateway) -> None:
        with gateway.client() as http:
            answer = http.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": "mine-1"})
        told = answer.headers
        assert (told["x-request-id"], told["openai-version"]) == ("mine-1", "2020-10-01")
        assert told["openai-processing-ms"].isdecimal()
        assert re.fullmatch(r"gateway;dur=\d+\.\d{3}, upstream;dur=\d+\.\d{3}", told["server-timing"])

    def test_a_stream_has_the_headers_that_keep_it_flowing(self, gateway: Gateway) -> None:
        with gateway.client() as http:
            answer = http.post("/v1/chat/completions", json={**CHAT, "stream": True})
        told = answer.headers
        assert told["content-type"].startswith("text/event-stream")
        assert (told["cache-control"], told["x-accel-buffering"]) == ("no-cache", "no")
        assert "content-length" not in told

    def test_a_clients_own_headers_do_not_reach_the_upstream(
        self, gateway: Gateway, upstream: MemoryUpstream
    ) -> None:
        own = {"x-stainless-lang": "python", "openai-organization": "o", "accept-encoding": "gzip"}
        with gateway.client(headers=own) as http:
            assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert set(upstream.calls[0].headers) <= {"content-type", "x-request-id", "traceparent"}


class TestBodies:
    HEAD = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\nconnection: close\r\n"
    )

    def test_a_client_that_waits_for_100_continue_gets_it(self, gateway: Gateway) -> None:
        head = self.HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(RAW)
        answer = raw(gateway, head, RAW)
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")

    def test_a_chunked_body_is_read(self, gateway: Gateway) -> None:
        parts = [b"%x\r\n%b\r\n" % (len(RAW[at : at + 7]), RAW[at : at + 7]) for at in range(0, len(RAW), 7)]
        answer = raw(gateway, self.HEAD + b"transfer-encoding: chunked\r\n\r\n", *parts, b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")

    @pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "identity"])
    def test_a_packed_body_is_unpacked(
        self, gateway: Gateway, upstream: MemoryUpstream, encoding: str
    ) -> None:
        body = RAW if encoding == "identity" else gzip.compress(RAW)
        with gateway.client() as http:
            answer = http.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
        assert answer.status_code == 200
        assert b'"hello"' in upstream.calls[0].body
        assert "content-encoding" not in upstream.calls[0].headers

    @pytest.mark.parametrize(
        ("body", "encoding", "status"),
        [
            (gzip.compress(b" " * 100_000_000), "gzip", 413),
            (gzip.compress(RAW)[:-4], "gzip", 400),
            (gzip.compress(RAW) + b"more", "gzip", 400),
            (RAW, "gzip", 400),
            (RAW, "br", 415),
            (RAW, "gzip, gzip", 415),
        ],
        ids=["bomb", "cut", "two", "plain", "other", "twice"],
    )
    def test_a_packed_body_that_is_none_or_too_large_is_refused(
        self, gateway: Gateway, body: bytes, encoding: str, status: int
    ) -> None:
        with gateway.client() as http:
            answer = http.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")

    def test_a_bomb_never_takes_more_memory_than_the_limit(self) -> None:
        limit = 100_000
        bomb = gzip.compress(b" " * 20_000_000)
        tracemalloc.start()
        with pytest.raises(APIStatusError) as caught:
            packing.unpacked(bomb, "gzip", limit)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert caught.value.status_code == 413
        assert peak < 10 * limit

    def test_unknown_fields_pass_byte_for_byte(self, gateway: Gateway, upstream: MemoryUpstream) -> None:
        more = b',"top_k" : 1e1,  "x":{"\\u0061": [ 1.10, 12345678901234567890123 ]},"max_tokens":5}'
        with gateway.client() as http:
            answer = http.post("/v1/chat/completions", content=RAW[:-1] + more)
        assert answer.status_code == 200
        assert upstream.calls[0].body == RAW[:-1] + more


def test_every_route_has_a_described_body(gateway: Gateway) -> None:
    with gateway.client() as http:
        paths: dict[str, Any] = http.get("/openapi.json").json()["paths"]
    for path in ("/v1/images/edits", "/v1/audio/speech", "/v1/rerank", "/v1/files", "/v1/batches"):
        assert "requestBody" in paths[path]["post"], path
