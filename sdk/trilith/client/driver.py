"""Runs operations: sends, tries again, and reads. One driver for plain code, its twin for coroutines."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from trilith.client.operation import Operation
from trilith.client.raw import RawResponse
from trilith.client.retry import Retries, error_of
from trilith.client.session import Session
from trilith.client.sse import EventReader
from trilith.client.stream import AsyncStream, Stream
from trilith.client.wire import Answer, AsyncReply, AsyncWire, Reply, Wire
from trilith.errors import APIError

T = TypeVar("T")
R = TypeVar("R")


class Driver:
    """Runs operations over a wire.

    Args:
        wire: Carries the requests; shared by all copies of a client.
        session: The client's standing choices.
        pause: Sleeps so many seconds.
        chance: Returns a number in [0, 1), which scatters the pauses.
        raw: Whether results stay inside their `RawResponse`; `trilith.client.raw` has types that say so.
    """

    def __init__(
        self,
        wire: Wire,
        session: Session,
        *,
        pause: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
        raw: bool = False,
    ) -> None:
        self.wire = wire
        self.session = session
        self._pause = pause
        self._chance = chance
        self._raw = raw

    def but(self, session: Session | None = None, *, raw: bool = False) -> Driver:
        """Return a driver on the same wire with other choices."""
        return Driver(self.wire, session or self.session, pause=self._pause, chance=self._chance, raw=raw)

    def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""
        answer = self._try(operation, _whole)
        return self._give(RawResponse(answer.status, answer.headers, lambda: operation.result(answer)))

    def stream(self, operation: Operation[T]) -> Stream[T]:
        """Run one operation until its answer begins; from there on it is not tried again."""
        reply = self._try(operation, lambda reply: reply)
        request_id = reply.headers.get("x-request-id")
        stream = Stream(reply, EventReader(operation.shaped, request_id), request_id)
        return self._give(RawResponse(reply.status, reply.headers, lambda: stream))

    def _give(self, response: RawResponse[R]) -> R:
        return cast(R, response) if self._raw else response.parse()

    def _try(self, operation: Operation[Any], take: Callable[[Reply], R]) -> R:
        request = self.session.request(operation)
        retries = Retries(self.session.max_retries, self._chance)
        while True:
            try:
                reply = self.wire.send(request)
                if 200 <= reply.status < 300:
                    return take(reply)
                raise error_of(_whole(reply))
            except APIError as error:
                pause_s = retries.pause_s(error)
            self._pause(pause_s)


class AsyncDriver:
    """Runs operations over a wire, from coroutines; arguments as for `Driver`."""

    def __init__(
        self,
        wire: AsyncWire,
        session: Session,
        *,
        pause: Callable[[float], Awaitable[None]] | None = None,
        chance: Callable[[], float] = random.random,
        raw: bool = False,
    ) -> None:
        self.wire = wire
        self.session = session
        self._pause = pause or _sleep
        self._chance = chance
        self._raw = raw

    def but(self, session: Session | None = None, *, raw: bool = False) -> AsyncDriver:
        """Return a driver on the same wire with other choices."""
        return AsyncDriver(
            self.wire, session or self.session, pause=self._pause, chance=self._chance, raw=raw
        )

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""
        answer = await self._try(operation, _awhole)
        return self._give(RawResponse(answer.status, answer.headers, lambda: operation.result(answer)))

    async def stream(self, operation: Operation[T]) -> AsyncStream[T]:
        """Run one operation until its answer begins; from there on it is not tried again."""
        reply = await self._try(operation, _begun)
        request_id = reply.headers.get("x-request-id")
        stream = AsyncStream(reply, EventReader(operation.shaped, request_id), request_id)
        return self._give(RawResponse(reply.status, reply.headers, lambda: stream))

    def _give(self, response: RawResponse[R]) -> R:
        return cast(R, response) if self._raw else response.parse()

    async def _try(self, operation: Operation[Any], take: Callable[[AsyncReply], Awaitable[R]]) -> R:
        request = self.session.request(operation)
        retries = Retries(self.session.max_retries, self._chance)
        while True:
            try:
                reply = await self.wire.send(request)
                if 200 <= reply.status < 300:
                    return await take(reply)
                raise error_of(await _awhole(reply))
            except APIError as error:
                pause_s = retries.pause_s(error)
            await self._pause(pause_s)


def _whole(reply: Reply) -> Answer:
    try:
        return Answer(reply.status, reply.headers, b"".join(reply.chunks()))
    finally:
        reply.close()


async def _awhole(reply: AsyncReply) -> Answer:
    try:
        return Answer(reply.status, reply.headers, b"".join([chunk async for chunk in reply.chunks()]))
    finally:
        await reply.aclose()


async def _begun(reply: AsyncReply) -> AsyncReply:
    return reply


async def _sleep(seconds: float) -> None:
    import asyncio  # not needed by programs that never wait

    await asyncio.sleep(seconds)
