"""Runs an exchange through the stages and hands the answer out, so that nothing is answered unsettled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from trilith.errors import APIError, InternalServerError
from trilith_gateway import answer, sse
from trilith_gateway.exchange import Answer, Exchange, Rule

_log = logging.getLogger(__name__)


class Stage(Protocol):
    """A step before the answer is known. It may set `exchange.answer`; later steps then have less to do."""

    async def __call__(self, exchange: Exchange) -> None:
        """Do the step; an APIStatusError becomes the caller's answer."""
        ...


class Transform(Protocol):
    """A step over the answer on its way back."""

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Return the whole answer, changed."""
        ...

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the stream, changed."""
        ...


class Closing(Protocol):
    """A step that runs once for every exchange, however it ended, before its last byte leaves."""

    def __call__(self, exchange: Exchange) -> None:
        """Do the step; must not wait."""
        ...


class Outlet(Protocol):
    """The way back to the caller."""

    async def start(self, status: int, headers: dict[str, str], *, length: int | None) -> None:
        """Send the head; `length` is None for a stream."""
        ...

    async def write(self, data: bytes) -> None:
        """Send a part of the body."""
        ...

    async def finish(self) -> None:
        """End the body properly."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The nine stages in order: six before the answer, one over it, two that close the books."""

    before: Sequence[Stage]
    over: Sequence[Transform]
    closing: Sequence[Closing]

    async def run(self, exchange: Exchange, outlet: Outlet) -> None:
        """Answer one exchange. Cancelling the task means that the caller has left."""
        try:
            ready = await self._answer(exchange)
            if ready.events is None:
                await self._send_body(exchange, ready, outlet)
            else:
                await self._send_events(exchange, ready, ready.events, outlet)
        except asyncio.CancelledError:
            exchange.rule = exchange.rule or Rule.ABORTED
            raise
        finally:
            try:
                self._close(exchange)
            finally:
                if exchange.reply is not None:
                    await exchange.reply.aclose()

    async def _answer(self, exchange: Exchange) -> Answer:
        try:
            for stage in self.before:
                await stage(exchange)
        except APIError as error:
            return answer.error(exchange, error)
        except Exception as error:  # a fault of ours: the caller learns nothing of its insides
            _log.exception("request %s failed", exchange.id)
            fault = InternalServerError("The gateway failed; its log has the reason.", status_code=500)
            fault.__cause__ = error
            return answer.error(exchange, fault)
        if exchange.answer is None:
            raise RuntimeError("no stage gave an answer")
        return exchange.answer

    async def _send_body(self, exchange: Exchange, ready: Answer, outlet: Outlet) -> None:
        body = ready.body
        if ready.status < 400:
            for transform in self.over:
                body = transform.body(exchange, body)
        try:
            self._close(exchange)
        except APIError as error:
            ready = answer.error(exchange, error)
            body = ready.body
        await outlet.start(ready.status, {**ready.headers, **answer.headers(exchange)}, length=len(body))
        await outlet.write(body)
        await outlet.finish()

    async def _send_events(
        self, exchange: Exchange, ready: Answer, events: AsyncIterator[bytes], outlet: Outlet
    ) -> None:
        for transform in self.over:
            events = transform.events(exchange, events)
        await outlet.start(ready.status, {**ready.headers, **answer.headers(exchange)}, length=None)
        try:
            async for event in events:
                if sse.data(event) == b"[DONE]":
                    self._close(exchange)  # the charge is on disk before the caller sees the end
                await outlet.write(event)
                exchange.delivered_bytes += len(event)
        except APIError as error:
            exchange.rule = exchange.rule or Rule.BROKEN
            self._close(exchange)
            await outlet.write(sse.encode(answer.error_object(error)))  # and no [DONE]: this is not an end
        await outlet.finish()

    def _close(self, exchange: Exchange) -> None:
        if exchange.settled:
            return
        exchange.settled = True
        for step in self.closing:
            step(exchange)
