"""Many requests through a gateway whose replicas fail in every way that sockets can, by seeded chance."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from trilith.seams import Call
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.upstream.http import HttpUpstream

FAULTS = ("latency", "reset", "silent", "half answer", "burst", "429", "429 date", "close")
BODY = json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Faulty:
    """A server that does one request in so many wrong."""

    def __init__(self, seed: int, share: float) -> None:
        self._rng = random.Random(seed)
        self._share = share
        self._burst = 0
        self._left: list[str] = []
        self.done: Counter[str] = Counter()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
        fault = self._fault()
        self.done[fault] += 1
        match fault:
            case "latency":
                await asyncio.sleep(0.02)
            case "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            case "silent":
                await reader.read()
                return False
            case "half answer":
                writer.write(OK[:-5])
                await writer.drain()
                return False
            case "close":
                return False
            case "burst":
                return await self._say(writer, b"503 Service Unavailable", b"")
            case "429":
                return await self._say(writer, b"429 Too Many Requests", b"retry-after-ms: 20\r\n")
            case "429 date":
                when = b"retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
                return await self._say(writer, b"429 Too Many Requests", when)
        writer.write(OK)
        await writer.drain()
        return True

    async def _say(self, writer: asyncio.StreamWriter, status: bytes, header: bytes) -> bool:
        writer.write(b"HTTP/1.1 %b\r\n%bcontent-length: 0\r\n\r\n" % (status, header))
        await writer.drain()
        return True

    def _fault(self) -> str:
        if self._burst:
            self._burst -= 1
            return "burst"
        if self._rng.random() >= self._share:
            return "none"
        if not self._left:  # each of them in every round
            self._left = self._rng.sample(FAULTS, len(FAULTS))
        fault = self._left.pop()
        self._burst = 3 if fault == "burst" else 0
        return fault


@contextlib.asynccontextmanager
async def served(handler: object) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)  # type: ignore[arg-type]
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        server.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_request_is_lost_that_another_replica_could_serve(seed: int) -> None:
    """One replica is sound, one fails in all ways, one has no address, behind one nobody listens."""
    faulty, sound = Faulty(seed, share=0.8), Faulty(seed, share=0.0)
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unheard.getsockname()[1]}/v1"
        async with served(faulty) as bad, served(sound) as good:
            places = (bad, good, "http://no-such-host.invalid/v1", nobody)
            endpoints = [
                Endpoint(url, HttpUpstream(url), breaker=Breaker(failures_to_open=3, pause_s=0.05))
                for url in places
            ]
            endpoints[0].breaker.failures_to_open = 10**9  # so that all its faults are met
            routed = RoutedUpstream(
                endpoints,
                policy.weighted,  # gives each of them its turn, bad as it may be
                limits=Limits(attempts=4, retry_share=3, attempt_s=1),  # three of four are bad
                rng=random.Random(seed),
            )
            call = Call("/v1/chat/completions", b"{}", timeout_s=20)

            async def one() -> int:
                reply = await routed.send(call)
                assert b"".join([part async for part in reply.chunks()]) == BODY
                return reply.status

            statuses: Counter[int] = Counter()
            for _ in range(40):
                statuses.update(await asyncio.gather(*(one() for _ in range(5))))
            while not set(FAULTS) <= set(faulty.done):  # on a quick machine it rests through many rounds
                assert statuses.total() < 20_000
                statuses.update(await asyncio.gather(*(one() for _ in range(5))))
            assert set(statuses) == {200}
            assert [endpoint.outstanding for endpoint in endpoints] == [0, 0, 0, 0]
            await routed.aclose()
