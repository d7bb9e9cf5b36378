"""Request smuggling, byte by byte: whatever two parsers could read in two ways is refused and the connection
closed, or is exactly one request; and the upstream sees exactly those requests that were answered."""

from __future__ import annotations

import contextlib
import json
import re
import socket

import pytest
from support.gateway import Gateway

from trilith.testing import MemoryUpstream

BODY = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "front"}]}).encode()
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
KEY = b"authorization: Bearer TOKEN\r\n"
LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
HOST = b"host: x\r\n"
HIDDEN = LINE + HOST + KEY + LENGTH + b"\r\n" + BODY.replace(b"front", b"inner")
"""What an attacker hides behind another request."""
CLOSE = b"connection: close\r\n"


def post(*headers: bytes, body: bytes = BODY, line: bytes = LINE) -> bytes:
    return line + HOST + KEY + b"".join(headers) + b"\r\n" + body


REFUSED = {
    "a length and chunks": post(LENGTH, CHUNKED, body=CHUNKS),
    "chunks and a length": post(CHUNKED, LENGTH, body=CHUNKS),
    "a length of nothing and chunks": post(b"content-length: 0\r\n", CHUNKED, body=CHUNKS + HIDDEN),
    "a short length and chunks": post(b"content-length: 4\r\n", CHUNKED, body=CHUNKS + HIDDEN),
    "two lengths that differ": post(LENGTH, b"content-length: 1\r\n"),
    "two lengths that agree": post(LENGTH, LENGTH),
    "a list of lengths": post(b"content-length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "a length with a sign": post(b"content-length: +%d\r\n" % len(BODY)),
    "a negative length": post(b"content-length: -1\r\n"),
    "a length in hexadecimal": post(b"content-length: 0x%x\r\n" % len(BODY)),
    "a length in words": post(b"content-length: many\r\n"),
    "an empty length": post(b"content-length:\r\n"),
    "a length beyond 64 bits": post(b"content-length: 18446744073709551617\r\n"),
    "a length with a space inside": post(b"content-length: 1 0\r\n"),
    "a bare LF after the request line": post(LENGTH, line=LINE[:-2] + b"\n"),
    "a bare LF after a header": post(b"x-a: 1\n", LENGTH),
    "a bare LF at the head's end": LINE + HOST + KEY + LENGTH + b"\n" + BODY,
    "a bare CR in a header": post(b"x-a: 1\rcontent-length: 0\r\n", LENGTH),
    "a folded header": post(b"x-a: 1\r\n folded\r\n", LENGTH),
    "a folded encoding": post(b"transfer-encoding:\r\n chunked\r\n", LENGTH, body=CHUNKS),
    "a space before the colon": post(b"transfer-encoding : chunked\r\n", body=CHUNKS),
    "a tab before the colon": post(b"content-length\t: %d\r\n" % len(BODY)),
    "a space before the first header": LINE + b" " + HOST + KEY + LENGTH + b"\r\n" + BODY,
    "no colon": post(b"content-length\r\n", LENGTH),
    "no name": post(b": value\r\n", LENGTH),
    "a NUL in a value": post(b"x-a: 1\0\r\n", LENGTH),
    "a NUL in a name": post(b"x-\0a: 1\r\n", LENGTH),
    "a NUL in the path": post(LENGTH, line=b"POST /v1/chat\0/completions HTTP/1.1\r\n"),
    "a letter outside ASCII in a name": post("tränsfer-encoding: chunked\r\n".encode(), LENGTH),
    "an encoding that is nearly chunked": post(b"transfer-encoding: xchunked\r\n", body=CHUNKS),
    "chunked, then identity": post(b"transfer-encoding: chunked, identity\r\n", body=CHUNKS),
    "chunked, then identity, in two headers": post(CHUNKED, b"transfer-encoding: identity\r\n", body=CHUNKS),
    "an unknown encoding and a length": post(b"transfer-encoding: cow\r\n", LENGTH),
    "a quoted encoding": post(b'transfer-encoding: "chunked"\r\n', body=CHUNKS),
    "an encoding behind a vertical tab": post(b"transfer-encoding: \x0bchunked\r\n", body=CHUNKS),
    "a chunk size with a sign": post(CHUNKED, body=b"+" + CHUNKS),
    "a negative chunk size": post(CHUNKED, body=b"-1\r\n" + BODY),
    "a chunk size with 0x": post(CHUNKED, body=b"0x" + CHUNKS),
    "a chunk size with an underscore": post(CHUNKED, body=b"1_0\r\n" + BODY),
    "a chunk size in words": post(CHUNKED, body=b"many\r\n" + BODY),
    "an empty chunk size": post(CHUNKED, body=b"\r\n" + BODY),
    "a chunk size beyond 64 bits": post(CHUNKED, body=b"f" * 17 + b"\r\n" + BODY),
    "a bare LF after a chunk size": post(CHUNKED, body=CHUNKS.replace(b"\r\n", b"\n", 1)),
    "a chunk longer than its size": post(CHUNKED, body=b"4\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a trailer that looks like framing": post(CHUNKED, body=CHUNKS[:-2] + LENGTH + b"\r\n"),
    "an unknown method": post(LENGTH, line=b"SMUGGLE /v1/chat/completions HTTP/1.1\r\n"),
    "a method in lower case": post(LENGTH, line=LINE.replace(b"POST", b"post")),
    "an HTTP version that is none": post(LENGTH, line=LINE.replace(b"1.1", b"1.1.1")),
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/2.0 as text": post(LENGTH, line=LINE.replace(b"1.1", b"2.0")),
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a target with a host": post(LENGTH, line=LINE.replace(b"/v1", b"http://other.example/v1")),
    "a tunnel": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"\1" * 40 + b"\r\n\r\n",
}
ONCE = {
    "chunked in capitals": post(b"Transfer-Encoding: CHUNKED\r\n", CLOSE, body=CHUNKS),
    "a chunk with an extension": post(CHUNKED, CLOSE, body=CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
    "zeros before a chunk size": post(CHUNKED, CLOSE, body=b"000" + CHUNKS),
    "a trailer": post(CHUNKED, CLOSE, body=CHUNKS[:-2] + b"x-a: 1\r\n\r\n"),
    "an empty line before the request": b"\r\n" + post(LENGTH, CLOSE),
    "a header that names a header as hop-by-hop": post(LENGTH, b"connection: close, authorization\r\n"),
}


HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
OFFERS = [
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n",
    b"connection: Upgrade\r\nupgrade: websocket\r\n",
    b"upgrade: h2c\r\n",
]


def texts(echo: MemoryUpstream) -> list[str]:
    return [json.loads(call.body)["messages"][0]["content"] for call in echo.calls]


def exchange(gateway: Gateway, raw: bytes, *, wait_s: float = 5) -> tuple[list[int], bytes]:
    """Send `raw`, read until the gateway closes, and return the statuses of its answers and all bytes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=wait_s) as connection:
        connection.sendall(raw.replace(b"TOKEN", gateway.token.encode()))
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                got += data
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)], got


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_and_the_connection_closed(
    gateway: Gateway, echo: MemoryUpstream, raw: bytes
) -> None:
    statuses, got = exchange(gateway, raw + HIDDEN)
    assert statuses == [400], got
    exchange(gateway, post(LENGTH, CLOSE))  # after which whatever was smuggled would have been run, too
    assert texts(echo) == ["front"]


@pytest.mark.parametrize("raw", ONCE.values(), ids=ONCE)
def test_what_is_unusual_but_clear_is_exactly_one_request(
    gateway: Gateway, echo: MemoryUpstream, raw: bytes
) -> None:
    statuses, got = exchange(gateway, raw)
    assert statuses == [200], got
    assert texts(echo) == ["front"]


@pytest.mark.parametrize("behind", [HIDDEN, b"x", b"\0" * 100], ids=["a request", "a letter", "bytes"])
def test_what_follows_the_last_request_of_a_connection_is_not_run(
    gateway: Gateway, echo: MemoryUpstream, behind: bytes
) -> None:
    statuses, got = exchange(gateway, post(LENGTH, CLOSE) + behind)
    assert (statuses, texts(echo)) in [([200], ["front"]), ([400], [])], got


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_of_another_protocol_is_declined_and_hides_no_request(
    gateway: Gateway, echo: MemoryUpstream, offer: bytes
) -> None:
    statuses, got = exchange(gateway, post(LENGTH, offer) + HEALTH)
    assert statuses == [200, 200], got
    assert texts(echo) == ["front"]


def test_a_wish_to_close_survives_an_offer_of_another_protocol(gateway: Gateway) -> None:
    statuses, _ = exchange(gateway, post(LENGTH, b"connection: close, Upgrade\r\nupgrade: h2c\r\n"), wait_s=1)
    assert statuses == [200]


def test_the_gateways_key_never_reaches_the_upstream(gateway: Gateway, echo: MemoryUpstream) -> None:
    exchange(
        gateway, post(LENGTH, CLOSE, b"x-api-key: TOKEN\r\nproxy-authorization: TOKEN\r\ncookie: a=TOKEN\r\n")
    )
    assert gateway.token not in str(echo.calls[0].headers)


@pytest.mark.parametrize("key", [b"", b"authorization: Bearer nobody\r\n"])
def test_what_hides_behind_a_refused_request_is_no_way_past_the_key(
    gateway: Gateway, echo: MemoryUpstream, key: bytes
) -> None:
    stranger = HIDDEN.replace(KEY, key)
    statuses, got = exchange(gateway, stranger + stranger.replace(LENGTH, LENGTH + CLOSE))
    assert set(statuses) == {401}, got
    assert echo.calls == []
