"""Connections to the gateway, byte by byte: order, limits, farewells."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream


class Wire:
    """A raw connection."""

    def __init__(self, gateway: Gateway) -> None:
        host, port = gateway.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self._token = gateway.token
        self._held = b""

    def post(
        self, text: str = "hi", *, path: str = "/v1/chat/completions", extra: str = "", **more: object
    ) -> bytes:
        body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": text}], **more}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._token}\r\n{extra}"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer with a content length."""
        while b"\r\n\r\n" not in self._held:
            self._read()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._held) < length:
            self._read()
        body, self._held = self._held[:length], self._held[length:]
        return int(status.split(" ")[1]), headers, body

    def text(self) -> str:
        return str(json.loads(self.answer()[2])["choices"][0]["message"]["content"])

    def _read(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(self._held)
        self._held += data

    def at_end(self) -> bool:
        """Say whether the server has closed, with nothing more to say."""
        with contextlib.suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

    def reset(self) -> None:
        """Leave without a farewell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


Dial = Callable[[Gateway], Wire]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Opens connections, and closes them in the end."""
    with contextlib.ExitStack() as stack:

        def made(gateway: Gateway) -> Wire:
            wire = Wire(gateway)
            stack.callback(wire.socket.close)
            return wire

        yield made


@pytest.fixture
def wire(dial: Dial, gateway: Gateway) -> Wire:
    return dial(gateway)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_pipelined_requests_are_answered_in_their_order_whoever_answers_them(wire: Wire) -> None:
    health = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    wire.send(wire.post("one") + health + wire.post("two") + wire.post("three") + health)
    assert wire.text() == "one"
    assert json.loads(wire.answer()[2]) == {"status": "ok"}
    assert [wire.text(), wire.text()] == ["two", "three"]
    assert json.loads(wire.answer()[2]) == {"status": "ok"}


@pytest.mark.parametrize("step", [1, 7, 100])
def test_a_request_may_come_in_pieces(wire: Wire, step: int) -> None:
    request = wire.post("in pieces")
    for at in range(0, len(request), step):
        wire.send(request[at : at + step])
    assert wire.text() == "in pieces"


def test_a_chunked_body_is_read(wire: Wire) -> None:
    head, _, body = wire.post("chunks").partition(b"\r\n\r\n")
    head = head[: head.rindex(b"\r\n")] + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    wire.send(head + b"4\r\n" + body[:4] + b"\r\n%x\r\n" % len(body[4:]) + body[4:] + b"\r\n0\r\n\r\n")
    assert wire.text() == "chunks"


def test_who_asks_whether_to_send_is_told(wire: Wire) -> None:
    head, _, body = wire.post("go", extra="expect: 100-continue\r\n").partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert wire.answer()[0] == 100
    wire.send(body)
    assert wire.text() == "go"


def test_a_stranger_is_refused_without_his_body_being_asked_for(wire: Wire) -> None:
    head = wire.post(extra="expect: 100-continue\r\n").partition(b"\r\n\r\n")[0]
    wire.send(head.replace(b"Bearer tl", b"Bearer xx") + b"\r\n\r\n")
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (401, "close")
    assert wire.at_end()


def test_a_body_that_is_too_long_is_refused_while_it_comes_and_the_answer_arrives(wire: Wire) -> None:
    head = wire.post().partition(b"\r\n\r\n")[0]
    head = head[: head.rindex(b"\r\n")] + b"\r\ncontent-length: 50000000\r\n\r\n"
    wire.send(head)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(150):
            wire.send(b"x" * 65536)
    assert wire.answer()[0] == 413
    assert wire.at_end()


def test_an_old_client_gets_its_answer_and_a_closed_connection(wire: Wire) -> None:
    wire.send(wire.post("old").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    _, headers, body = wire.answer()
    assert headers["connection"] == "close"
    assert b"old" in body
    assert wire.at_end()


def test_an_old_client_gets_a_stream_without_chunks_which_ends_with_the_connection(wire: Wire) -> None:
    wire.send(wire.post(stream=True).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    received = b""
    while part := wire.socket.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


def test_an_offer_of_another_protocol_is_declined_by_answering_in_this_one(wire: Wire) -> None:
    wire.send(wire.post("plain", extra="connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"))
    assert wire.text() == "plain"


def test_many_offers_at_once_are_declined_one_after_the_other(wire: Wire) -> None:
    offer = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
    wire.send((offer + b"\r\n") * 999 + offer.replace(b"upgrade\r", b"close\r") + b"\r\n")
    received = b""
    while part := wire.socket.recv(65536):
        received += part
    assert received.count(b"HTTP/1.1 200") == 1000


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"POST http://elsewhere/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (b"POST /v1/chat/completions HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
        (b"POST /" + b"v" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_connection_closed(
    wire: Wire, request_head: bytes, status: int
) -> None:
    wire.send(request_head + wire.post("smuggled"))
    found, headers, body = wire.answer()
    assert (found, headers["connection"]) == (status, "close")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert wire.at_end()


def test_a_head_or_a_body_that_does_not_come_is_not_waited_for(
    dial: Dial, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream()}, gateway={"head_timeout_s": 0.5, "body_timeout_s": 0.5}
    )
    slow_head, slow_body, silent = dial(gateway), dial(gateway), dial(gateway)
    slow_head.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost:")
    slow_body.send(slow_body.post()[:-5])
    assert [slow_head.answer()[0], slow_body.answer()[0]] == [408, 408]
    assert silent.at_end()


def test_an_idle_connection_is_closed(dial: Dial, start_gateway: StartGateway) -> None:
    wire = dial(start_gateway({"echo": MemoryUpstream()}, gateway={"keep_alive_s": 0.5}))
    wire.send(wire.post("hi"))
    assert wire.text() == "hi"
    assert wire.at_end()


@pytest.mark.parametrize("farewell", ["close", "half-close", "reset"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_leaves_stops_the_upstreams_work(
    dial: Dial, start_gateway: StartGateway, farewell: str, stream: bool
) -> None:
    upstream = MemoryUpstream(delay_s=0.3 if stream else 60)
    gateway = start_gateway({"echo": upstream})
    wire = dial(gateway)
    wire.send(wire.post("a b c d e f g h i j k l m n o p", stream=stream))
    until(lambda: upstream.calls)
    if stream:
        assert wire.socket.recv(1)
    match farewell:
        case "close":
            wire.socket.close()
        case "half-close":
            wire.socket.shutdown(socket.SHUT_WR)
        case "reset":
            wire.reset()
    until(lambda: upstream.aborted)
    until(lambda: gateway.ledger())
    assert [row["status"] for row in gateway.ledger()] == [499]
    assert gateway.rows("select * from reservations") == []


def test_half_closing_can_be_allowed(dial: Dial, start_gateway: StartGateway) -> None:
    wire = dial(start_gateway({"echo": MemoryUpstream(delay_s=0.3)}, gateway={"half_close": True}))
    wire.send(wire.post("still here"))
    wire.socket.shutdown(socket.SHUT_WR)
    assert wire.text() == "still here"
    assert wire.at_end()


def test_a_reader_that_stalls_does_not_make_the_gateway_hold_the_stream(
    dial: Dial, start_gateway: StartGateway
) -> None:
    upstream = MemoryUpstream("word " * 8_000_000, chunks=4000)
    gateway = start_gateway({"echo": upstream})
    wire = dial(gateway)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.send(wire.post("x", stream=True))
    until(lambda: upstream.streamed)
    before = -1
    while before != upstream.streamed:  # until it has come to a stand
        before = upstream.streamed
        time.sleep(0.3)
    assert 0 < upstream.streamed < 2000
    while upstream.streamed < 4000:  # and goes on when the caller does
        assert wire.socket.recv(1 << 20)


class TestWhatComesBehind:
    """A request that came whole is answered, whatever comes behind it."""

    @pytest.mark.parametrize("behind", [b"\0\0\0", b"GET / HTTP/9.9\r\n\r\n", b"x" * 300_000])
    @pytest.mark.parametrize("pause_s", [0.0, 0.05])
    def test_requests_before_one_that_cannot_be_read_are_answered_before_it_is_refused(
        self, start_gateway: StartGateway, dial: Dial, behind: bytes, pause_s: float
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(delay_s=0.1)})
        wire = dial(gateway)
        wire.send(wire.post("one") + wire.post("two"))
        time.sleep(pause_s)
        wire.send(behind)
        assert [wire.text(), wire.text()] == ["one", "two"]
        assert wire.answer()[0] == 400
        assert wire.at_end()
        assert [row["rule"] for row in gateway.ledger()] == ["usage", "usage"]

    def test_a_stream_goes_on_though_what_comes_behind_its_request_is_nothing(
        self, start_gateway: StartGateway, dial: Dial
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream("a b c d", delay_s=0.05)})
        wire = dial(gateway)
        wire.send(wire.post("x", stream=True))
        time.sleep(0.1)
        wire.send(b"\0")
        told = b""
        with contextlib.suppress(ConnectionResetError):
            while data := wire.socket.recv(65536):
                told += data
        assert b"[DONE]" in told
        assert told.partition(b"\r\n0\r\n\r\n")[2].startswith(b"HTTP/1.1 400 ")

    def test_one_before_the_body_of_another_that_cannot_be_read_is_answered(
        self, start_gateway: StartGateway, dial: Dial
    ) -> None:
        upstream = MemoryUpstream(delay_s=0.1)
        gateway = start_gateway({"echo": upstream})
        wire = dial(gateway)
        broken = wire.post("two", extra="transfer-encoding: chunked\r\n").replace(
            b"content-length", b"x-length"
        )
        wire.send(wire.post("one") + broken)
        assert wire.text() == "one"
        assert wire.answer()[0] == 400
        assert wire.at_end()
        assert len(upstream.calls) == 1
