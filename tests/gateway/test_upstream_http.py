"""The HTTP client against a real socket whose other end is scripted, byte for byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from trilith.errors import APIConnectionError, APITimeoutError
from trilith.seams import Call
from trilith_gateway.upstream.http import HttpUpstream

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
Handler = Callable[["Peer"], Awaitable[None]]


class Peer:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        """Read one request; returns its head."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        await self.reader.readexactly(int(length.split(b":")[1]))
        return head

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Return when the other side has closed."""
        while await self.reader.read(65536):
            pass


class Script:
    """A server that handles its connections one script after the other; the last one serves all others."""

    def __init__(self) -> None:
        self.handlers: list[Handler] = []
        self.accepted = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = self.handlers[min(self.accepted, len(self.handlers) - 1)]
        self.accepted += 1
        try:
            await handler(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def upstream(script: Script) -> AsyncIterator[HttpUpstream]:
    server = await asyncio.start_server(script, "127.0.0.1", 0)
    made = HttpUpstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", api_key="secret")
    async with server:
        yield made
        await made.aclose()
        server.close()


async def ask(upstream: HttpUpstream, *, timeout_s: float = 20, repeatable: bool = True) -> tuple[int, bytes]:
    call = Call(path="/v1/chat/completions", body=b"{}", timeout_s=timeout_s, repeatable=repeatable)
    reply = await upstream.send(call)
    return reply.status, b"".join([part async for part in reply.chunks()])


async def forever(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.say(OK)


async def test_one_connection_carries_one_call_after_the_other(
    upstream: HttpUpstream, script: Script
) -> None:
    script.handlers = [forever]
    assert [await ask(upstream) for _ in range(3)] == [(200, b"{}")] * 3
    assert script.accepted == 1


async def test_the_credential_is_sent_and_a_header_cannot_smuggle_another(
    upstream: HttpUpstream, script: Script
) -> None:
    heads: list[bytes] = []

    async def look(peer: Peer) -> None:
        heads.append(await peer.request())
        await peer.say(OK)

    script.handlers = [look]
    await ask(upstream)
    assert b"\r\nauthorization: Bearer secret\r\n" in heads[0]
    with pytest.raises(ValueError, match="line end"):
        await upstream.send(Call(path="/v1/x", body=b"", headers={"x-request-id": "a\r\nx-evil: 1"}))


@pytest.mark.parametrize(
    "path",
    ["/v2/x HTTP/1.1\r\nx-evil: 1\r\n\r\n", "/v2/x\ny", "/v2/a b", "/v2/\0", "/v2/ü", "http://other/x", ""],
)
async def test_a_path_cannot_smuggle_a_request(upstream: HttpUpstream, script: Script, path: str) -> None:
    with pytest.raises(ValueError, match="request line"):
        await upstream.send(Call(path=path, body=b""))
    assert script.accepted <= 1  # the client may have connected, and has said nothing


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(
    upstream: HttpUpstream, script: Script
) -> None:
    closed = asyncio.Event()

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.reader.readuntil(b"\r\n\r\n")  # the second request arrives, and is met by a close
        closed.set()

    script.handlers = [once, forever]
    assert await ask(upstream) == (200, b"{}")
    assert await ask(upstream) == (200, b"{}")
    assert closed.is_set()
    assert script.accepted == 2


async def test_a_call_that_must_not_be_repeated_is_not(upstream: HttpUpstream, script: Script) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.reader.readuntil(b"\r\n\r\n")  # perhaps it is acted upon, and then there is silence

    script.handlers = [once, forever]
    assert await ask(upstream) == (200, b"{}")
    with pytest.raises(APIConnectionError) as caught:
        await ask(upstream, repeatable=False)
    assert (caught.value.sent, script.accepted) == (True, 1)


async def test_a_call_that_must_not_be_repeated_takes_no_connection_that_may_be_closed(
    upstream: HttpUpstream, script: Script
) -> None:
    script.handlers = [forever]
    assert await ask(upstream) == (200, b"{}")
    upstream._pool._idle[-1].idle_since -= 10
    assert await ask(upstream, repeatable=False) == (200, b"{}")
    assert script.accepted == 2


async def test_a_fresh_connection_that_is_closed_before_the_answer_is_an_error(
    upstream: HttpUpstream, script: Script
) -> None:
    async def rude(peer: Peer) -> None:
        await peer.request()

    script.handlers = [rude]
    with pytest.raises(APIConnectionError, match="before an answer"):
        await ask(upstream)
    assert script.accepted == 1


@pytest.mark.parametrize("step", [1, 3, 1000])
async def test_an_answer_in_chunks_is_whole_however_it_is_cut(
    upstream: HttpUpstream, script: Script, step: int
) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    answer += b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\ntrailer: 1\r\n\r\n"

    async def dribble(peer: Peer) -> None:
        while True:
            await peer.request()
            for at in range(0, len(answer), step):
                await peer.say(answer[at : at + step])
                await asyncio.sleep(0)

    script.handlers = [dribble]
    assert [await ask(upstream) for _ in range(2)] == [(200, b"hello world")] * 2
    assert script.accepted == 1


async def test_an_answer_that_lasts_until_the_close_ends_there(
    upstream: HttpUpstream, script: Script
) -> None:
    async def old(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    script.handlers = [old]
    assert await ask(upstream) == (200, b"all of it")


async def test_an_answer_that_breaks_off_is_an_error_and_never_a_short_answer(
    upstream: HttpUpstream, script: Script
) -> None:
    async def broken(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    script.handlers = [broken]
    with pytest.raises(APIConnectionError, match="broke off"):
        await ask(upstream)


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        OK + OK,
    ],
)
async def test_what_is_not_one_clean_answer_is_an_error_and_the_connection_is_not_kept(
    upstream: HttpUpstream, script: Script, garbage: bytes
) -> None:
    async def babble(peer: Peer) -> None:
        await peer.request()
        await peer.say(garbage)
        await peer.gone()

    script.handlers = [babble, forever]
    with pytest.raises(APIConnectionError):
        await ask(upstream)
    assert await ask(upstream) == (200, b"{}")
    assert script.accepted == 2


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096),
        (b"HTTP/1.1 200 ", b"y" * 4096),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
)
async def test_a_head_that_does_not_end_is_not_read_for_ever(
    upstream: HttpUpstream, script: Script, begins: bytes, goes_on: bytes
) -> None:
    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.say(begins)
        while True:
            await peer.say(goes_on)

    script.handlers = [endless]
    with pytest.raises(APIConnectionError, match="not HTTP"):
        await ask(upstream)


async def test_an_answer_after_interim_ones_is_the_answer(upstream: HttpUpstream, script: Script) -> None:
    async def patient(peer: Peer) -> None:
        while True:
            await peer.request()
            for part in (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early",
                b" Hints\r\nlink: x\r\n\r\n",
                OK,
            ):
                await peer.say(part)
                await asyncio.sleep(0.01)

    script.handlers = [patient]
    assert [await ask(upstream) for _ in range(2)] == [(200, b"{}")] * 2
    assert script.accepted == 1


async def test_a_peer_that_has_vanished_is_noticed(upstream: HttpUpstream, script: Script) -> None:
    # It cannot be played without a network to cut; so this looks at what the system is told.
    script.handlers = [forever]
    assert await ask(upstream) == (200, b"{}")
    told = upstream._pool._idle[-1].transport.get_extra_info("socket")
    assert told.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert 0 < told.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000


async def test_a_silent_upstream_is_given_up_after_the_calls_time(
    upstream: HttpUpstream, script: Script
) -> None:
    noticed = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        noticed.set()

    script.handlers = [silent]
    with pytest.raises(APITimeoutError):
        await ask(upstream, timeout_s=0.2)
    await asyncio.wait_for(noticed.wait(), 10)


async def test_the_time_of_a_call_after_a_rest_is_kept_as_exactly_as_any_other(
    upstream: HttpUpstream, script: Script
) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.gone()

    script.handlers = [once]
    assert await ask(upstream) == (200, b"{}")
    pool, loop = upstream._pool, asyncio.get_running_loop()
    pool._tick(loop)  # as it happens at rest
    asking = asyncio.create_task(ask(upstream))
    await asyncio.sleep(0)
    assert pool._timer is not None
    assert pool._timer.when() - loop.time() <= 0.1
    asking.cancel()
    await asyncio.wait({asking})


@pytest.mark.parametrize("begun", [False, True])
async def test_a_caller_who_gives_up_aborts_the_upstreams_work(
    upstream: HttpUpstream, script: Script, begun: bool
) -> None:
    asked, noticed = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        if begun:
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        asked.set()
        try:
            await peer.gone()
        finally:
            noticed.set()

    script.handlers = [slow]
    work = asyncio.create_task(ask(upstream))
    await asked.wait()
    if begun:
        await asyncio.sleep(0.05)
        work.cancel()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    if begun:  # as the pipeline does in the end
        upstream._pool.close()
    await asyncio.wait_for(noticed.wait(), 10)


async def test_a_reader_that_stalls_stops_the_reading_from_the_socket(
    upstream: HttpUpstream, script: Script
) -> None:
    sent = 0
    size = 64 * 1024 * 1024

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.say(b"x" * 65536)
            sent += 65536

    script.handlers = [flood]
    reply = await upstream.send(Call(path="/v1/x", body=b"", timeout_s=60))
    before = -1
    while before != sent:  # until the sender has come to a stand
        before = sent
        await asyncio.sleep(0.2)
    assert sent < size // 2
    assert sum([len(part) async for part in reply.chunks()]) == size


async def test_a_name_that_does_not_resolve_is_a_connection_error() -> None:
    upstream = HttpUpstream("http://nowhere.invalid/v1")
    with pytest.raises(APIConnectionError):
        await ask(upstream)
    assert not await upstream.ready()


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        upstream = HttpUpstream(f"http://127.0.0.1:{unheard.getsockname()[1]}/v1")
        with pytest.raises(APIConnectionError) as caught:
            await ask(upstream)
    assert not caught.value.sent
    await upstream.aclose()


async def test_what_is_fetched_leaves_no_connection_behind(upstream: HttpUpstream, script: Script) -> None:
    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.gone()
        left.set()

    left, script.handlers = asyncio.Event(), [once]
    assert await upstream.fetch("/health", timeout_s=20) == (200, b"{}")
    await asyncio.wait_for(left.wait(), 10)
    assert not upstream._pool._idle


async def test_a_fetch_that_is_given_up_within_the_body_closes_its_connection(
    upstream: HttpUpstream, script: Script
) -> None:
    async def slow(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK[:-1])
        began.set()
        await peer.gone()
        left.set()

    began, left, script.handlers = asyncio.Event(), asyncio.Event(), [slow]
    asking = asyncio.create_task(upstream.fetch("/health", timeout_s=20))
    await began.wait()
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait_for(left.wait(), 10)
