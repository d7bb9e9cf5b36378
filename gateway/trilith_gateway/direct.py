"""A request that needs no task of its own, because nothing is waited for but its upstream's whole answer.

So it is with nearly all that are not streamed, and a task, a future and half a dozen coroutines cost as much
as the stages do. Whatever else must be waited for is left to a task, which goes on where this has stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol

from trilith_gateway.era import Era
from trilith_gateway.exchange import Exchange
from trilith_gateway.pipeline import Outlet, Pipeline
from trilith_gateway.rule import Rule
from trilith_gateway.stages.call import Begun
from trilith_gateway.tracelog import TraceLog


class Way(Outlet, Protocol):
    """The way back to a caller, for an exchange that has no task yet."""

    def go_on(self, rest: Coroutine[Any, Any, None]) -> None:
        """Make a task of what is left to be done."""
        ...

    def fail(self, error: Exception) -> None:
        """Hear that the answer could not be sent as a whole."""
        ...


class Direct:
    """Runs one exchange from callback to callback."""

    __slots__ = ("_begun", "_era", "_exchange", "_next", "_pipeline", "_traces", "_way")

    def __init__(
        self, pipeline: Pipeline, era: Era, traces: TraceLog | None, exchange: Exchange, way: Way
    ) -> None:
        """Take an exchange.

        Args:
            pipeline: The stages.
            era: Where it is counted.
            traces: Where its spans come from, if anywhere.
            exchange: What is to be answered.
            way: Where its answer goes; from its `go_on` on, this does nothing any more.
        """
        self._pipeline = pipeline
        self._era = era
        self._traces = traces
        self._exchange = exchange
        self._way = way
        self._begun: Begun | None = None
        self._next = 0

    def start(self) -> None:
        """Run the stages."""
        self._era.enter()
        if self._traces is not None:
            self._traces.begin(self._exchange)
        wait, self._next = self._pipeline.begin(self._exchange)
        if type(wait) is Begun:
            self._begun = wait
            wait.reply.listen(self._heard)
        elif wait is not None:
            self._leave_to_task(wait)
        else:
            self._answer()

    def _heard(self) -> None:
        """Something has come from the upstream."""
        begun = self._begun
        if begun is None:
            return
        try:
            whole = begun.take()
        except Exception as error:
            self._pipeline.fail(self._exchange, error)
            whole = True
        if whole is None:
            begun.reply.listen(self._heard)
            return
        self._begun = None
        if whole:
            self._answer()
        else:
            self._leave_to_task(begun)

    def _leave_to_task(self, wait: Awaitable[None] | None) -> None:
        self._way.go_on(self._go_on(wait))

    async def _go_on(self, wait: Awaitable[None] | None) -> None:
        await self._counted(self._pipeline.resume(self._exchange, self._way, wait, self._next))

    async def _counted(self, rest: Awaitable[None]) -> None:
        failure: BaseException | None = None
        try:
            await rest
        except BaseException as error:
            failure = error
            raise
        finally:
            self._over(failure)

    def _answer(self) -> None:
        ready = self._exchange.answer
        if ready is None or ready.events is not None or self._next < len(self._pipeline.before):
            self._leave_to_task(None)
            return
        try:
            wait = self._pipeline.send_body(self._exchange, ready, self._way)
        except Exception as error:
            self._end(error)
        else:
            if wait is None:
                self._end(None)
            else:
                self._way.go_on(self._counted(wait))

    def leave(self) -> None:
        """The caller has gone: the upstream is told at once."""
        begun, self._begun = self._begun, None
        if begun is not None:
            begun.leave()
            self._exchange.rule = self._exchange.rule or Rule.ABORTED
            self._end(asyncio.CancelledError())

    def _end(self, failure: BaseException | None) -> None:
        try:
            self._pipeline.close(self._exchange)
        except Exception as error:
            failure = failure or error
        self._over(failure)
        if isinstance(failure, Exception):
            self._way.fail(failure)

    def _over(self, failure: BaseException | None) -> None:
        self._era.leave()
        if self._traces is not None:
            self._traces.end(self._exchange, failure)
