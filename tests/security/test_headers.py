"""Headers cross the gateway by name or not at all, in both directions."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest
from support.gateway import Gateway, Running, StartGateway
from support.scripted_server import Scripted, ScriptedServer
from support.world import MODELS, Spoken, world

from trilith.seams import Call, Reply
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream

FROM_CALLERS = {
    "x-api-key": "TOKEN",
    "proxy-authorization": "Basic TOKEN",
    "cookie": "session=TOKEN",
    "te": "trailers",
    "trailer": "x-late",
    "keep-alive": "timeout=99",
    "proxy-connection": "keep-alive",
    "forwarded": "for=127.0.0.1",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "inside.example",
    "x-real-ip": "127.0.0.1",
    "x-original-url": "/v1/models",
    "x-http-method-override": "GET",
    "x-trilith-team": "other",
    "x-trilith-key": "other",
    "x-trilith-release": "000000000000",
    "x-trilith-cost-usd": "0",
    "x-trilith-rows": "0",
    "x-trilith-cache": "hit",
    "x-mlflow-guardrail-bypass": "true",
    "accept-encoding": "gzip",
    "openai-organization": "org-1",
}
PASSED_ON = {"content-type", "x-request-id", "traceparent", "tracestate"}


def test_a_callers_headers_reach_no_upstream_but_for_four(gateway: Gateway, echo: MemoryUpstream) -> None:
    sent = {name: value.replace("TOKEN", gateway.token) for name, value in FROM_CALLERS.items()}
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with gateway.client(headers=sent) as client:
        answered = client.post("/v1/chat/completions", json=body)
    assert answered.status_code == 200
    assert set(echo.calls[0].headers) <= PASSED_ON
    assert gateway.token not in str(echo.calls[0])


def test_headers_that_sound_internal_change_nothing(gateway: Gateway, echo: MemoryUpstream) -> None:
    plain = gateway.chat("x")
    with gateway.client(headers={n: v for n, v in FROM_CALLERS.items() if n.startswith("x-")}) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        dressed = client.post("/v1/chat/completions", json=body)
    assert dressed.json() == plain.json()
    for name in ("x-trilith-release", "x-trilith-cost-usd", "x-trilith-cache"):
        assert dressed.headers.get(name) == plain.headers.get(name)
    rows = gateway.ledger()
    assert {row["team"] for row in rows} == {"test"}
    assert len({row["amount_pico_usd"] for row in rows}) == 1


def test_an_upstreams_headers_reach_no_caller_unless_they_are_known(tmp_path: Path) -> None:
    odd = {
        "set-cookie": "a=b",
        "server": "secret/1.0",
        "x-powered-by": "secret",
        "access-control-allow-origin": "*",
        "location": "http://169.254.169.254/",
        "x-trilith-cost-usd": "0",
        "x-trilith-release": "forged",
        "x-request-id": "theirs",
        "connection": "keep-alive, x-custom",
        "x-custom": "1",
    }
    answer = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    with ScriptedServer([Scripted(body=answer, headers=odd)]) as upstream:
        chat = {**MODELS["chat"], "upstream": {"url": f"{upstream.url}/v1"}}
        described = Settings.model_validate({"home": tmp_path, "models": {"echo": chat}})
        with Running(described, {}) as gateway:
            answered = gateway.chat("x")
    assert answered.status_code == 200
    kept = {"x-trilith-cost-usd", "x-trilith-release", "x-request-id"}
    assert not (set(odd) - kept) & answered.headers.keys()
    assert all(answered.headers[name] != odd[name] for name in kept)
    assert answered.headers["x-upstream-request-id"] == "theirs"


def test_a_redirect_is_not_followed_not_passed_on_and_not_charged(tmp_path: Path) -> None:
    with ScriptedServer([Scripted(body={"choices": []})]) as inside:
        away = Scripted(307, headers={"location": f"{inside.url}/latest/meta-data/"})
        with ScriptedServer([away]) as upstream:
            chat = {**MODELS["chat"], "upstream": {"url": f"{upstream.url}/v1"}}
            described = Settings.model_validate({"home": tmp_path, "models": {"echo": chat}})
            with Running(described, {}) as gateway:
                answered = gateway.chat("x")
                assert [row["amount_pico_usd"] for row in gateway.ledger()] == [0]
        assert inside.received == []
    assert answered.status_code == 502
    assert "location" not in answered.headers


class Splitting:
    """Answers with a header that holds a line end."""

    def __init__(self, name: str, value: str) -> None:
        self.header = {name: value}

    async def send(self, call: Call) -> Reply:
        return Spoken(200, {"choices": []}, self.header)

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("name", ["content-type", "retry-after", "x-request-id", "content-disposition"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions?by=asgi"])
def test_an_upstream_cannot_split_an_answer(tmp_path: Path, name: str, end: str, path: str) -> None:
    splitting = Splitting(name, f"application/json{end}x-evil: 1{end}{end}HTTP/1.1 200 OK")
    with world(tmp_path, splitting, models={"chat": MODELS["chat"]}) as gateway:
        host, port = gateway.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "x"}]}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        head += f"authorization: Bearer {gateway.token}\r\n"
        got = b""
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            while data := connection.recv(65536):
                got += data
    lines = got.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert not [line for line in lines if line.startswith(b"x-evil")], got
    assert got.count(b"HTTP/1.1 200") <= 1


@pytest.mark.parametrize("given", ["a b", "a\tb", "x" * 200, "../../etc/passwd", "<script>", "é"])
def test_a_request_id_that_is_no_name_is_not_repeated(start_gateway: StartGateway, given: str) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    headers = [("authorization", f"Bearer {gateway.token}"), ("x-request-id", given.encode("latin-1"))]
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(base_url=gateway.url) as client:
        answered = client.post("/v1/chat/completions", json=body, headers=headers)  # type: ignore[arg-type]
    assert answered.headers["x-request-id"].startswith("req_")
