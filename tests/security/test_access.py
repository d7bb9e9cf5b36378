"""Every way in needs a key but for a short list, and the list is exact: in the routes and on the wire."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route
from support.gateway import Gateway
from support.world import HERE, world

from trilith_gateway.app import assemble
from trilith_gateway.routes import convention
from trilith_gateway.wire import route as wire

OPEN = {
    ("GET", "/health"),
    ("GET", "/healthz"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/ping"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/openapi.json"),
    ("HEAD", "/openapi.json"),
    ("GET", "/docs"),
    ("HEAD", "/docs"),
    ("GET", "/docs/oauth2-redirect"),
    ("HEAD", "/docs/oauth2-redirect"),
}
SQL = [
    "' or '1'='1",
    "'; drop table keys; --",
    'tl_" union select 1,2,3 --',
    "tl_000000000000_'%00",
    "%27%20or%201",
    "",
]
STRANGERS = {
    "no key": {},
    "an empty one": {"authorization": "Bearer"},
    "another scheme": {"authorization": "Basic dTpw"},
    "a key that never was": {"authorization": "Bearer tl_000000000000_" + "x" * 43},
    "words of SQL": {"authorization": "Bearer ' or 1=1; --"},
    "a key in the wrong header": {"x-trilith-key": "TOKEN", "api-key": "TOKEN", "cookie": "key=TOKEN"},
    "a bypass that others have": {"x-trilith-internal": "1", "x-mlflow-guardrail-bypass": "true"},
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with world(tmp_path_factory.mktemp("world")) as running:
        yield running


def ways_in(gateway: Gateway) -> set[tuple[str, str]]:
    """Return every method and path of the application's own table, documented or not."""

    def walk(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for one in routes:
            if (included := getattr(one, "original_router", None)) is not None:
                yield from walk(included.routes)
                continue
            assert isinstance(one, Route | APIRoute), f"{one} is a way in that this test cannot look into"
            yield from ((method, one.path) for method in one.methods or ())

    return set(walk(assemble(gateway.platform).routes))


def filled(path: str) -> str:
    for name, value in {"{name:path}": "bikes", "{version}": "1", "{id}": "file-" + "0" * 24}.items():
        path = path.replace(name, value)
    assert "{" not in path, f"{path} has a parameter that this test knows no value for"
    return path


def meant(path: str) -> str:
    """Return the path that the application reads a path as."""
    found: str = convention._meant({"type": "http", "method": "POST", "path": path})["path"]
    return found


def sent(gateway: Gateway, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
    """Send a target as it is written: clients tidy up theirs, and those who look for holes do not."""
    connection = HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        connection.putheader("content-length", "0")
        connection.endheaders()
        answered = connection.getresponse()
        return answered.status, {k.lower(): v for k, v in answered.getheaders()}, answered.read()
    finally:
        connection.close()


def test_the_open_routes_are_exactly_those_of_the_list(gateway: Gateway) -> None:
    with httpx.Client(base_url=gateway.url) as stranger:
        answered = {
            way for way in ways_in(gateway) if stranger.request(way[0], filled(way[1])).status_code != 401
        }
    assert answered == OPEN


def test_paths_without_a_version_are_as_closed_as_those_with_one(gateway: Gateway) -> None:
    short = {
        (method, path.removeprefix("/v1"))
        for method, path in ways_in(gateway)
        if path.startswith("/v1/") and meant(path.removeprefix("/v1")) == path
    }
    assert {path for _, path in short} >= {"/chat/completions", "/messages", "/files/{id}", "/batches"}
    with httpx.Client(base_url=gateway.url) as stranger:
        for method, path in sorted(short):
            assert stranger.request(method, filled(path), content=b"{}").status_code == 401, (method, path)


def test_what_is_open_tells_nothing_of_the_release_the_settings_or_the_callers(gateway: Gateway) -> None:
    gateway.chat(model="chat")
    kept = {version("trilith"), str(gateway.home), HERE["url"], gateway.token.split("_")[1], '"test"'}
    with httpx.Client(base_url=gateway.url) as stranger:
        for path in sorted({path for _, path in OPEN}):
            answered = stranger.get(path)
            assert answered.status_code == 200, path
            told = answered.text + json.dumps(dict(answered.headers))
            assert [word for word in kept if word in told] == [], path


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS)
def test_no_route_lets_a_stranger_in(gateway: Gateway, headers: dict[str, str]) -> None:
    sent = {name: value.replace("TOKEN", gateway.token) for name, value in headers.items()}
    with httpx.Client(base_url=gateway.url, headers=sent) as stranger:
        for method, path in sorted(ways_in(gateway) - OPEN):
            refused = stranger.request(method, filled(path), content=b"{}")
            assert refused.status_code == 401, (method, path)
            assert refused.headers["x-request-id"]


@given(st.sampled_from(["authorization", "x-api-key"]), st.binary(max_size=60), st.sampled_from(SQL))
@settings(max_examples=100, deadline=None)
def test_whatever_stands_where_a_key_should_is_refused_and_breaks_nothing(
    gateway: Gateway, name: str, noise: bytes, words: str
) -> None:
    noise = bytes(byte for byte in noise if byte >= 0x20 and byte != 0x7F)
    host, port = gateway.url.removeprefix("http://").split(":")
    for path in ("/v1/chat/completions", "/v1/chat/completions?by=asgi", "/v1/feedback"):
        value = b"Bearer " * (name == "authorization") + words.encode() + noise
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n{name}: ".encode()
        )
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head + value + b"\r\n\r\n{}")
            assert connection.recv(12) == b"HTTP/1.1 401"
    assert gateway.rows("select count(*) as n from keys") == [{"n": 0}]


def test_what_the_wire_answers_by_itself_is_routed_and_refused_alike(gateway: Gateway) -> None:
    """The wire's table leads past ASGI: each of its paths is a route too, so that one list holds all."""
    host, port = gateway.url.removeprefix("http://").split(":")
    routed = {filled(path) for _, path in ways_in(gateway)}
    paths = [
        *(path.decode() for path in wire._FIXED),
        "/v2/models/bikes/infer",
        "/v2/models/bikes/versions/1/infer",
    ]
    for path in paths:
        assert meant(path) in routed
        found = wire.find(path.encode())
        assert found is not None
        assert found[1] == meant(path)
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("POST", "//v1/chat/completions", 404),
        ("POST", "//chat/completions", 404),
        ("POST", "/v1//chat/completions", 404),
        ("POST", "/v1/v1/chat/completions", 404),
        ("POST", "/v1/../v1/nothing", 404),
        ("POST", "/chat/../v1/chat/completions", 404),
        ("POST", "/messages/", 404),
        ("DELETE", "/v1/messages", 405),
        ("DELETE", "/messages", 405),
        ("TRACE", "/v2/models/bikes/infer", 405),
        ("PUT", "/invocations", 405),
        ("GET", "/models/bikes/invocations", 405),
    ],
)
def test_what_is_no_route_is_refused_in_its_paths_protocol(
    gateway: Gateway, method: str, path: str, status: int
) -> None:
    got, headers, body = sent(gateway, method, path)
    assert got == status
    assert headers["x-request-id"]
    said = json.loads(body)
    if path.startswith("/v2"):
        assert isinstance(said["error"], str)
    elif path.endswith("/invocations"):
        assert said["message"]
    else:
        assert said["error"]["message"]
    anthropic = path.removeprefix("/v1").startswith("/messages")
    assert said.get("type") == ("error" if anthropic else None)
