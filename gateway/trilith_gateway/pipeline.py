"""Runs an exchange through the stages and hands the answer out, so that nothing is answered unsettled.

Most requests never wait but for their upstream. So what may wait, and seldom does, returns an awaitable or
None, and only the former is awaited: a coroutine for each stage would cost more than the stage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trilith.errors import APIConnectionError, APIError, InternalServerError
from trilith_gateway import answer, sse
from trilith_gateway.exchange import Answer, Exchange
from trilith_gateway.rule import Rule

_log = logging.getLogger(__name__)


class Stage(Protocol):
    """A step before the answer is known. It may set `exchange.answer`; later steps then have less to do."""

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Do the step, or return what does it; an APIStatusError becomes the caller's answer."""
        ...


class Transform(Protocol):
    """A step over the answer on its way back."""

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Return the whole answer, changed."""
        ...

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the stream, changed; items are blocks of one or more whole events."""
        ...


class Closing(Protocol):
    """A step that runs once for every exchange, however it ended, before its last byte leaves."""

    def __call__(self, exchange: Exchange) -> None:
        """Do the step; must not wait."""
        ...


class Outlet(Protocol):
    """The way back to the caller. Each method returns what to wait for when the caller reads too slowly."""

    def send(self, status: int, headers: dict[str, str], body: bytes) -> Awaitable[None] | None:
        """Send a whole answer."""
        ...

    def start(self, status: int, headers: dict[str, str]) -> Awaitable[None] | None:
        """Send the head of a stream."""
        ...

    def write(self, data: bytes) -> Awaitable[None] | None:
        """Send a part of the stream."""
        ...

    def finish(self) -> Awaitable[None] | None:
        """End the stream properly."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The nine stages in order: six before the answer, one over it, two that close the books."""

    before: Sequence[Stage]
    over: Sequence[Transform]
    closing: Sequence[Closing]

    async def run(self, exchange: Exchange, outlet: Outlet) -> None:
        """Answer one exchange. Cancelling the task means that the caller has left."""
        await self.resume(exchange, outlet, None, 0)

    def begin(self, exchange: Exchange) -> tuple[Awaitable[None] | None, int]:
        """Run the steps before the answer up to the first that must wait.

        Returns:
            What is to be waited for, and which step comes after it. None: the answer is there.
        """
        at = 0
        try:
            for stage in self.before:
                at += 1
                if (wait := stage(exchange)) is not None:
                    return wait, at
        except Exception as error:
            self.fail(exchange, error)
            at = len(self.before)
        return None, at

    def fail(self, exchange: Exchange, error: Exception) -> Answer:
        """Answer with an error; returns the answer."""
        # Of a fault of ours, the caller learns nothing of its insides.
        ready = answer.error(exchange, error) if isinstance(error, APIError) else _failed(exchange, error)
        exchange.answer = ready
        return ready

    async def resume(self, exchange: Exchange, outlet: Outlet, wait: Awaitable[None] | None, at: int) -> None:
        """Go on with what `begin` has begun; cancelling the task means that the caller has left."""
        try:
            try:
                if wait is not None:
                    await wait
                for stage in self.before[at:]:
                    if (wait := stage(exchange)) is not None:
                        await wait
                ready = exchange.answer or _unanswered()
            except Exception as error:
                ready = self.fail(exchange, error)
            if ready.events is None:
                if (wait := self.send_body(exchange, ready, outlet)) is not None:
                    await wait
            else:
                await self._send_events(exchange, ready, ready.events, outlet)
        except asyncio.CancelledError:
            exchange.rule = exchange.rule or Rule.ABORTED
            raise
        finally:
            try:
                if not exchange.settled:
                    self.close(exchange)
            finally:
                try:
                    if exchange.reply is not None:
                        await exchange.reply.aclose()
                    if exchange.ticket is not None:
                        await exchange.ticket.aclose()
                finally:
                    if exchange.place is not None:
                        exchange.place.leave()

    def send_body(self, exchange: Exchange, ready: Answer, outlet: Outlet) -> Awaitable[None] | None:
        """Send a whole answer, and close the books before."""
        body = ready.body
        try:
            if ready.status < 400:
                for transform in self.over:
                    body = transform.body(exchange, body)
            elif exchange.operation.dialect is not None and exchange.reply is not None:
                body = exchange.operation.dialect.refusal(body, ready.status)
        except Exception as error:
            exchange.answer = ready = answer.error(exchange, _unreadable(exchange, error))
            body = ready.body
        try:
            self.close(exchange)
        except APIError as error:
            exchange.answer = ready = answer.error(exchange, error)
            body = ready.body
        return outlet.send(ready.status, answer.headers(exchange, ready), body)

    async def _send_events(
        self, exchange: Exchange, ready: Answer, events: AsyncIterator[bytes], outlet: Outlet
    ) -> None:
        for transform in self.over:
            events = transform.events(exchange, events)
        if (wait := outlet.start(ready.status, answer.headers(exchange, ready))) is not None:
            await wait
        dialect = exchange.operation.dialect
        last = exchange.operation.ends_with if dialect is None else dialect.last
        failure = exchange.operation.failure if dialect is None else dialect.failure
        words = exchange.operation.last_event
        try:
            async for block in events:
                if sse.ends(block, last) or (words and any(word in block for word in words)):
                    self.close(exchange)  # the charge is on disk before the caller sees the end
                if (wait := outlet.write(block)) is not None:
                    await wait
                exchange.delivered_bytes += len(block)
            self.close(exchange)
        except Exception as broken:
            error = broken if isinstance(broken, APIError) else _unreadable(exchange, broken)
            exchange.rule = exchange.rule or Rule.BROKEN
            self.close(exchange)
            if ready.opaque:  # no word fits into it; that the connection breaks is the only one
                raise
            # And no [DONE]: this is not an end.
            told = sse.encode(exchange.operation.error(error)) if failure is None else failure(error)
            if (wait := outlet.write(told)) is not None:
                await wait
        if (wait := outlet.finish()) is not None:
            await wait

    def close(self, exchange: Exchange) -> None:
        """Close the books, once."""
        if exchange.settled:
            return
        exchange.settled = True
        for step in self.closing:
            step(exchange)


def _unanswered() -> Answer:
    raise RuntimeError("no stage gave an answer")


def _unreadable(exchange: Exchange, error: Exception) -> APIError:
    """Note what an upstream's answer did to a step over it, and return what the caller is told."""
    _log.warning("the answer to request %s cannot be read (%s)", exchange.id, type(error).__name__)
    return APIConnectionError("the upstream's answer is not what its protocol says")


def _failed(exchange: Exchange, error: Exception) -> Answer:
    _log.exception("request %s failed", exchange.id)
    fault = InternalServerError("The gateway failed; its log has the reason.", status_code=500)
    fault.__cause__ = error
    return answer.error(exchange, fault)
