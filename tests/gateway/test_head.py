"""Heads that come again: known by their bytes, and read no differently from what the parser makes of them."""

from __future__ import annotations

import json
import socket
import time

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream
from trilith_gateway.wire import route
from trilith_gateway.wire.head import KnownHead, known_head

FIRST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nX-A: b\r\n\r\n{}"


class Reader:
    """What the strict parser makes of some bytes."""

    def __init__(self) -> None:
        self.url = self.body = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.whole = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.whole += 1


def parsed(data: bytes) -> Reader | None:
    """Return the one whole request that `data` is, or None."""
    reader = Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return reader if reader.whole == 1 else None


def known(data: bytes) -> KnownHead | None:
    reader = parsed(data)
    found = route.find(reader.url) if reader is not None else None
    if reader is None or found is None:
        return None
    return known_head(data, reader.url, found, reader.headers)


def read(head: KnownHead, data: bytes) -> tuple[bytes, int] | None:
    """Return what follows the head, and how long its body is."""
    found = head.read(data)
    return None if found is None else (data[found[0] :], found[1])


def request(length: bytes, body: bytes, more: bytes = b"") -> bytes:
    return FIRST.replace(b": 2", b": " + length).replace(b"X-A: b\r\n", b"X-A: b\r\n" + more)[:-2] + body


def test_a_head_is_known_again_whatever_the_bodys_length() -> None:
    head = known(FIRST)
    assert head is not None
    assert head.headers == {"host": "x", "content-length": "2", "x-a": "b"}
    assert read(head, FIRST) == (b"{}", 2)
    assert read(head, request(b"12", b"x" * 12)) == (b"x" * 12, 12)
    assert read(head, request(b"12", b"x")) == (b"x", 12)
    assert read(head, request(b"0", b"")) == (b"", 0)


@pytest.mark.parametrize(
    "data",
    [
        request(b"+2", b"{}"),
        request(b" 2", b"{}"),
        request(b"", b""),
        request(b"2, 2", b"{}"),
        request(b"0x2", b"{}"),
        request("\u0662".encode(), b"{}"),
        request(b"1234567890", b"{}"),
        request(b"2", b"{}", b"X-B: c\r\n"),
        request(b"2", b"{}", b"Transfer-Encoding: chunked\r\n"),
        request(b"2", b"{}", b"Content-Length: 3\r\n"),
        FIRST.replace(b"X-A: b", b"X-A: c"),
        FIRST[:-3],
        FIRST[1:],
        b"",
    ],
)
def test_what_differs_in_more_than_its_length_is_left_to_the_parser(data: bytes) -> None:
    head = known(FIRST)
    assert head is not None
    assert head.read(data) is None


@pytest.mark.parametrize(
    "data",
    [
        request(b"2", b"{}", b"Transfer-Encoding: chunked\r\n"),
        request(b"2", b"{}", b"Expect: 100-continue\r\n"),
        request(b"2", b"{}", b"Content-Length: 2\r\n"),
        b"\r\n\r\n" + FIRST,
        b"\r\n" + FIRST,
    ],
)
def test_a_head_that_is_not_simple_is_not_remembered(data: bytes) -> None:
    assert known(data) is None


_PART = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b"2",
        b"12",
        b":",
        b" ",
        b"Content-Length: 2",
        b"content-length:3",
        b"X-A: b",
        b"{}",
        b"\0",
    ]
)


@given(st.integers(0, len(FIRST)), st.integers(0, 12), st.lists(_PART, max_size=4))
@example(at=FIRST.index(b": 2") + 2, cut=1, parts=[b"12"])
def test_a_known_head_is_never_read_otherwise_than_the_parser_reads_it(
    at: int, cut: int, parts: list[bytes]
) -> None:
    data = FIRST[:at] + b"".join(parts) + FIRST[at + cut :]
    head = known(FIRST)
    assert head is not None
    if (found := read(head, data)) is None or len(found[0]) != found[1]:
        return
    reader = parsed(data)
    assert reader is not None
    assert (reader.url, reader.body) == (head.url, found[0])
    assert {name: value for name, value in reader.headers if name != b"content-length"} == {
        name.encode(): value.encode() for name, value in head.headers.items() if name != "content-length"
    }


def test_requests_on_one_connection_are_each_answered_by_their_own_body(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    texts = ["one", "another one", "x" * 5000, "one", "y" * 90_000, "last"]
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pieces in (1, 2, 5):
            for text in texts:
                assert _asked(caller, gateway, text, pieces) == text
    assert len(gateway.ledger()) == 3 * len(texts)


def test_what_follows_a_body_that_came_in_pieces_is_the_next_request(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert _asked(caller, gateway, "first") == "first"
        one, two, three = (_message(gateway, text) for text in ("one", "two", "three"))
        caller.sendall(one[:-7])
        time.sleep(0.05)
        caller.sendall(one[-7:] + two + three[:30])
        time.sleep(0.05)
        caller.sendall(three[30:])
        assert [_answer(caller) for _ in range(3)] == ["one", "two", "three"]


def test_a_body_that_does_not_come_is_a_408(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, gateway={"body_timeout_s": 1})
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as caller:
        assert _asked(caller, gateway, "first") == "first"
        caller.sendall(_message(gateway, "second")[:-1])
        assert caller.recv(65536).startswith(b"HTTP/1.1 408 ")
    assert len(gateway.ledger()) == 1


def _message(gateway: Gateway, text: str) -> bytes:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": text}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _asked(caller: socket.socket, gateway: Gateway, text: str, pieces: int = 1) -> str:
    message = _message(gateway, text)
    size = -(-len(message) // pieces)
    for at in range(0, len(message), size):
        caller.sendall(message[at : at + size])
        time.sleep(0.01 if pieces > 1 else 0)
    return _answer(caller)


def _answer(caller: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += caller.recv(1)
    lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:-2])
    body = b""
    while len(body) < int(lines[b"content-length"]):
        body += caller.recv(int(lines[b"content-length"]) - len(body))
    return str(json.loads(body)["choices"][0]["message"]["content"])
