"""The connections of the coroutines' client: kept, given up, encrypted, or a proxy's."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gzip
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.caller import ANSWER

from trilith import APIConnectionError, APITimeoutError, AsyncClient
from trilith.client import line
from trilith.client.line import LineTransport

BODY = json.dumps(ANSWER).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts connections, and answers every call with the same bytes."""

    def __init__(self, answer: bytes = WHOLE, *, leaves: bool = False, delay_s: float = 0.0) -> None:
        self.answer, self.leaves, self.delay_s = answer, leaves, delay_s
        self.connections = 0
        self.url = ""
        self.left = asyncio.Event()
        self.bodies: list[bytes] = []
        self._over = asyncio.Event()
        self._under_way: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
        try:
            yield self
        finally:
            server.close()
            self._over.set()
            for writer in self._under_way.values():
                writer.transport.abort()
            await asyncio.gather(*(task for task in self._under_way if task))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._under_way[asyncio.current_task()] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                self.bodies.append(await reader.readexactly(int(size or 0)))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), self.delay_s)
                if writer.is_closing():  # by the end of the test, which uvloop's transports do not overlook
                    break
                writer.write(self.answer)
                await writer.drain()
                if self.leaves:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(client: AsyncClient, text: str = "q") -> str | None:
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
    return answer.choices[0].message.content


SAID = json.loads(BODY)["choices"][0]["message"]["content"]


async def test_one_connection_serves_call_after_call() -> None:
    async with Server().open() as server, AsyncClient(server.url, "k") as client:
        assert [await ask(client) for _ in range(5)] == [SAID] * 5
    assert server.connections == 1


async def test_calls_at_a_time_have_connections_of_their_own() -> None:
    async with Server(delay_s=0.02).open() as server, AsyncClient(server.url, "k") as client:
        await asyncio.gather(*(ask(client) for _ in range(8)))
        await asyncio.gather(*(ask(client) for _ in range(8)))
    assert server.connections == 8


async def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    async with Server(leaves=True).open() as server, AsyncClient(server.url, "k", max_retries=0) as client:
        assert [await ask(client) for _ in range(3)] == [SAID] * 3
    assert server.connections == 3


async def test_a_connection_that_was_long_unused_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_IDLE_S", 0.0)
    async with Server().open() as server, AsyncClient(server.url, "k") as client:
        await ask(client)
        await ask(client)
    assert server.connections == 2


async def test_words_after_the_answer_end_the_connection() -> None:
    async with (
        Server(WHOLE + b"HTTP/1.1 200").open() as server,
        AsyncClient(server.url, "k", max_retries=0) as client,
    ):
        assert [await ask(client) for _ in range(2)] == [SAID] * 2
    assert server.connections == 2


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with (
        Server(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, leaves=True).open() as server,
        AsyncClient(server.url, "k") as client,
    ):
        assert await ask(client) == SAID


async def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(BODY)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed)
    async with Server(head + packed).open() as server, AsyncClient(server.url, "k") as client:
        assert await ask(client) == SAID


async def test_words_before_the_answer_are_skipped() -> None:
    async with (
        Server(b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE).open() as server,
        AsyncClient(server.url, "k") as client,
    ):
        assert await ask(client) == SAID


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", WHOLE[:-5], b"nonsense\r\n\r\n"])
async def test_an_answer_that_breaks_off_is_a_connection_error(answer: bytes) -> None:
    async with (
        Server(answer, leaves=True).open() as server,
        AsyncClient(server.url, "k", max_retries=0) as client,
    ):
        with pytest.raises(APIConnectionError) as caught:
            await ask(client)
    assert caught.value.sent


async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async with Server().open() as server:
        pass
    async with AsyncClient(server.url, "k", max_retries=0) as client:
        with pytest.raises(APIConnectionError) as caught:
            await ask(client)
    assert not caught.value.sent


async def test_a_late_answer_closes_the_connection_and_the_next_call_has_its_own() -> None:
    async with (
        Server(delay_s=30).open() as server,
        AsyncClient(server.url, "k", max_retries=0, timeout_s=0.05) as client,
    ):
        with pytest.raises(APITimeoutError, match="ReadTimeout"):
            await ask(client)
        server.delay_s = 0
        assert await ask(client.with_options(timeout_s=5)) == SAID
    assert server.connections == 2


async def test_a_cancelled_call_leaves_no_half_read_connection() -> None:
    async with Server(delay_s=0.1).open() as server, AsyncClient(server.url, "k") as client:
        task = asyncio.create_task(ask(client))
        await asyncio.sleep(0.03)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await ask(client) == SAID
    assert server.connections == 2


async def test_a_large_request_and_a_large_answer_arrive_whole() -> None:
    said = dict(ANSWER, choices=[{"index": 0, "message": {"role": "assistant", "content": "x" * 3_000_000}}])
    body = json.dumps(said).encode()
    async with (
        Server(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body).open() as server,
        AsyncClient(server.url, "k") as client,
    ):
        assert await ask(client, "y" * 3_000_000) == "x" * 3_000_000
    assert b"y" * 3_000_000 in server.bodies[0]


async def test_a_slow_reader_makes_the_server_wait() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while sent < 400:
            writer.write(b"z" * 65536)
            await writer.drain()
            sent += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        httpx.AsyncClient(transport=LineTransport(httpx.Limits())) as pool,
        pool.stream("GET", url) as response,
    ):
        await asyncio.sleep(0.3)
        assert sent < 300
        assert sum([len(piece) async for piece in response.aiter_raw()]) == 400 * 65536


async def test_more_calls_than_connections_wait_their_turn_and_not_for_ever() -> None:
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with (
        Server(delay_s=0.1).open() as server,
        httpx.AsyncClient(transport=LineTransport(limits)) as pool,
    ):
        both = await asyncio.gather(pool.get(server.url), pool.get(server.url))
        assert [answer.status_code for answer in both] == [200, 200]
        hurried = pool.get(server.url, timeout=httpx.Timeout(5, pool=0.01))
        first, second = await asyncio.gather(pool.get(server.url), hurried, return_exceptions=True)
    assert isinstance(first, httpx.Response)
    assert isinstance(second, httpx.PoolTimeout)
    assert server.connections == 1


async def test_closing_the_client_ends_its_connections() -> None:
    async with Server().open() as server:
        async with AsyncClient(server.url, "k") as client:
            await ask(client)
        await asyncio.wait_for(server.left.wait(), 5)


def test_another_event_loop_gets_connections_of_its_own() -> None:
    limits = httpx.Limits(max_connections=4, max_keepalive_connections=4)
    transport = LineTransport(limits)

    async def once() -> int:
        async with Server().open() as server:
            answer = await transport.handle_async_request(httpx.Request("GET", server.url))
            await answer.aread()
            await answer.aclose()
            return server.connections

    assert [asyncio.run(once()) for _ in range(2)] == [1, 1]


async def test_an_encrypted_server_is_checked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = certified(tmp_path)
    async with Server().open(tls) as server:
        async with AsyncClient(server.url, "k", max_retries=0) as stranger:
            with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
                await ask(stranger)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        before = server.connections
        async with AsyncClient(server.url, "k") as client:
            assert [await ask(client) for _ in range(3)] == [SAID] * 3
    assert server.connections == before + 1


async def test_a_proxy_in_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server().open() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with AsyncClient("http://models.invalid", "k") as client:
            assert await ask(client) == SAID


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    made = made.not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate, private = folder / "c.pem", folder / "k.pem"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    shape = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, shape, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context, certificate


@pytest.mark.parametrize(
    "of_asyncio",
    [
        test_one_connection_serves_call_after_call,
        test_calls_at_a_time_have_connections_of_their_own,
        test_a_connection_that_the_server_has_closed_is_not_used_again,
        test_words_after_the_answer_end_the_connection,
        test_an_answer_without_a_length_ends_with_its_connection,
        test_a_server_that_is_not_there_was_sent_nothing,
        test_a_late_answer_closes_the_connection_and_the_next_call_has_its_own,
        test_a_cancelled_call_leaves_no_half_read_connection,
        test_a_large_request_and_a_large_answer_arrive_whole,
        test_a_slow_reader_makes_the_server_wait,
        test_more_calls_than_connections_wait_their_turn_and_not_for_ever,
        test_closing_the_client_ends_its_connections,
    ],
)
def test_an_application_on_uvloop_is_served_alike(
    of_asyncio: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(of_asyncio())
