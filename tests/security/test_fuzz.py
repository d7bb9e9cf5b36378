"""Bytes that nobody would send, cut wherever they can be: the same requests are run, and none is let in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.world import MODELS, Speaker
from uvicorn.server import ServerState

from trilith.settings.schema import Settings
from trilith_gateway import key, platform, server, sse
from trilith_gateway.app import assemble
from trilith_gateway.wire.protocol import WireProtocol

RECORDED = Path(__file__).parents[1] / "sdk" / "client" / "recorded" / "vllm_stream.sse"


class MemoryTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def write_eof(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Bench:
    """A gateway's own protocol, without a socket."""

    def __init__(self, home: Path, runner: asyncio.Runner) -> None:
        self._runner = runner
        made, self.token = key.mint("test")
        described = Settings.model_validate(
            {
                "home": home,
                "models": {"chat": MODELS["chat"]},
                "telemetry": {"store_spans": False},
            }
        )
        self.speaker = Speaker()
        self.platform = platform.build(described, given={"chat": self.speaker}, fixed_keys=(made,))
        self.config = server.make(assemble(self.platform), described.gateway).config
        self.config.load()

    def feed(self, *pieces: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the statuses of all answers, and the bodies of all calls that reached the upstream."""
        return self._runner.run(self._feed(pieces))

    async def _feed(self, pieces: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        self.speaker.calls.clear()
        transport = MemoryTransport()
        made: Any = self.config.http_protocol_class
        protocol: WireProtocol = made(config=self.config, server_state=ServerState(), app_state={})
        protocol.connection_made(transport)
        for piece in pieces:
            if not transport.closed:
                protocol.data_received(piece)
        for _ in range(400):
            if transport.closed or not protocol.tasks:
                break
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        await asyncio.sleep(0)
        answers = re.findall(rb"HTTP/1\.1 (\d{3}) ", transport.written)
        return answers, [call.body for call in self.speaker.calls]


def post(token: str, text: str, *headers: str) -> bytes:
    body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}]}).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {token}", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    marks = [0, *sorted(min(mark, len(data)) for mark in at), len(data)]
    return [data[start:end] for start, end in zip(marks, marks[1:], strict=False)]


async def cut_stream(data: bytes, at: Sequence[int]) -> AsyncIterator[bytes]:
    for piece in cut(data, at):
        yield piece


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        made = Bench(tmp_path_factory.mktemp("bench"), runner)
        yield made
        runner.run(made.platform.aclose())


def test_two_requests_cut_at_every_byte_are_the_same_two_requests(bench: Bench) -> None:
    raw = post(bench.token, "one") + post(bench.token, "two")
    whole = bench.feed(raw)
    assert whole[0] == [b"200", b"200"]
    for at in range(1, len(raw)):
        assert bench.feed(*cut(raw, [at])) == whole, at
    assert bench.feed(*(raw[at : at + 1] for at in range(len(raw)))) == whole


FRAGMENTS = [
    "content-length: 5",
    "content-length: 0",
    "transfer-encoding: chunked",
    "transfer-encoding: identity",
    "transfer-encoding:\tchunked",
    "connection: close",
    "connection: upgrade",
    "upgrade: h2c",
    "expect: 100-continue",
    "x: y",
    " folded",
    "x-trilith-internal: 1",
    "",
]
JUNK = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"\r\n",
            b"\n",
            b"\0",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ]
    ),
)


@given(
    headers=st.lists(st.sampled_from(FRAGMENTS), max_size=3),
    junk=st.lists(JUNK, max_size=3),
    place=st.integers(0, 400),
    at=st.lists(st.integers(0, 900), max_size=6),
)
@settings(max_examples=400, deadline=None)
def test_however_bytes_are_cut_the_same_requests_are_run_and_nothing_fails(
    bench: Bench, headers: list[str], junk: list[bytes], place: int, at: list[int]
) -> None:
    valid = post(bench.token, "one", *headers)
    raw = valid[:place] + b"".join(junk) + valid[place:] + post(bench.token, "two")
    whole = bench.feed(raw)
    assert not [status for status in whole[0] if status >= b"500"]
    assert bench.feed(*cut(raw, at)) == whole


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_bytes_without_a_key_reach_no_model(bench: Bench, data: bytes) -> None:
    for raw in (data, post("x", "one")[:40] + data, data + post("tl_nobody", "one")):
        answers, calls = bench.feed(raw)
        assert calls == []
        assert set(answers) <= {b"100", b"400", b"401", b"404", b"405", b"408", b"413", b"431"}


async def test_a_recorded_stream_cut_at_every_byte_gives_the_same_events() -> None:
    stream = RECORDED.read_bytes() + 'data: {"a":"ü€😀"}\r\n\r\n: keep-alive\n\ndata: [DONE]\n\n'.encode()
    whole = [event async for event in sse.split(cut_stream(stream, []))]
    assert len(whole) > 10
    for at in range(len(stream)):
        assert [event async for event in sse.split(cut_stream(stream, [at]))] == whole, at
    single = [stream[at : at + 1] for at in range(len(stream))]

    async def bytewise() -> AsyncIterator[bytes]:
        for piece in single:
            yield piece

    assert [event async for event in sse.split(bytewise())] == whole


@given(
    st.lists(
        st.sampled_from(
            [b"data: x", b'data: {"a":1}', b"\n", b"\r", b"\r\n", b"\n\n", b":", b"\0", "ü".encode()]
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 200), max_size=5),
)
async def test_no_byte_of_a_stream_is_lost_or_doubled(parts: list[bytes], at: list[int]) -> None:
    stream = b"".join(parts)
    got = b"".join([block async for block in sse.blocks(cut_stream(stream, at))])
    assert stream.startswith(got)
    assert not stream[len(got) :].strip()
