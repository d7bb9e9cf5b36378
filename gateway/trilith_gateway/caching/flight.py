"""Single flight: identical calls that are under way at once share one call of the upstream.

Who comes first begins it, who comes later reads the same bytes from their beginning. The call belongs to
nobody: it goes on while anybody listens, and is aborted when nobody does. One of them pays for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping

from trilith.errors import APIConnectionError
from trilith.seams import Reply
from trilith.types import Usage
from trilith_gateway.rule import Rule

_AHEAD_BYTES = 256 * 1024
"""How far the upstream may be ahead of its fastest listener."""
_JOINABLE_BYTES = 4 * 1024 * 1024
"""An answer that has grown beyond this is too large to be kept for others who may come."""
_BEHIND_BYTES = 16 * 1024 * 1024
"""A listener that is farther behind is cut off: what it has not read would fill the memory."""
_NOTHING = Usage(requests=0)
_UNANSWERED = frozenset({Rule.ABORTED, Rule.BROKEN, Rule.FAILED})


class Flights:
    """The calls that are under way, by what makes them identical."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def board(self, key: Hashable, send: Callable[[], Awaitable[Reply]]) -> Ticket:
        """Join the call under `key`, or begin it with `send`."""
        flight = self._under_way.get(key)
        if flight is None or not flight.joinable:
            flight = _Flight(send, lambda: self._landed(key, flight))
            self._under_way[key] = flight
        return flight.board()

    def _landed(self, key: Hashable, flight: _Flight | None) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]


class Ticket:
    """One listener's place in a call: its answer (a `Reply`), and whether it pays."""

    __slots__ = ("_at", "_flight", "_left", "led", "settled")

    def __init__(self, flight: _Flight, *, led: bool) -> None:
        self._flight = flight
        self._at = 0
        self._left = False
        self.led = led
        """Whether it began the call."""
        self.settled = False
        """Whether its charge is made."""

    async def head(self) -> None:
        """Wait for the answer's head.

        Raises:
            APIError: the upstream's failure, which all listeners share; other errors likewise.
        """
        flight = self._flight
        while flight.reply is None:
            if flight.failure is not None:
                raise flight.failure
            await flight.changed()

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._reply.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names."""
        return self._reply.headers

    @property
    def upstream(self) -> str:
        """Which replica answers; empty where there is only one."""
        return getattr(self._flight.reply, "upstream", "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body from its beginning.

        Raises:
            APIConnectionError: the upstream broke off, or this listener is too slow.
        """
        flight = self._flight
        while True:
            if self._at < len(flight.chunks):
                if flight.behind(self._at) > _BEHIND_BYTES:
                    raise APIConnectionError("the answer was not read in time")
                chunk = flight.chunks[self._at]
                self._at += 1
                flight.taken(self._at)
                yield chunk
            elif flight.over:
                if flight.failure is not None:
                    raise flight.failure
                return
            else:
                await flight.changed()

    async def aclose(self) -> None:
        """Leave; the last one to leave ends the call."""
        if not self._left:
            self._left = True
            await self._flight.leave(self)

    def bill(self, rule: Rule, usage: Usage) -> tuple[Rule, Usage]:
        """Return by which rule this listener is charged, and for what: of all listeners exactly one pays.

        The one who began the call pays, for all that it used. If it leaves while others listen, one of those
        pays in its place. All others are answered for nothing.

        Args:
            rule: By which it would be charged if the call were its own.
            usage: What it knows of the call's usage.
        """
        self.settled = True
        return self._flight.bill(self, rule, usage)

    @property
    def pays(self) -> bool:
        """Whether it is the one who pays, as things stand."""
        return self._flight.payer is self

    @property
    def _reply(self) -> Reply:
        if self._flight.reply is None:
            raise RuntimeError("the answer has no head yet")
        return self._flight.reply


class _Flight:
    """One call of the upstream and those who listen."""

    def __init__(self, send: Callable[[], Awaitable[Reply]], landed: Callable[[], None]) -> None:
        self.reply: Reply | None = None
        self.failure: Exception | None = None
        self.chunks: list[bytes] = []
        self.over = False
        self._landed = landed
        self._listeners: list[Ticket] = []
        self.payer: Ticket | None = None
        self._paid = False
        self._usage: Usage | None = None
        self._ends: list[int] = []  # where each chunk ends (bytes)
        self._furthest = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._thirst = asyncio.Event()
        self._task = asyncio.create_task(self._fly(send))

    @property
    def joinable(self) -> bool:
        return (
            self.failure is None
            and bool(self._listeners)
            and self._size <= _JOINABLE_BYTES
            and (self.reply is None or self.reply.status < 400)
            and (self.over or not self._paid)
        )

    @property
    def _size(self) -> int:
        return self._ends[-1] if self._ends else 0

    def board(self) -> Ticket:
        ticket = Ticket(self, led=self.payer is None)
        self._listeners.append(ticket)
        if self.payer is None:
            self.payer = ticket
        return ticket

    async def changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def behind(self, at: int) -> int:
        """Return how far a listener that is about to take chunk `at` is behind (bytes)."""
        return self._size - self._ends[at]

    def taken(self, count: int) -> None:
        if count > self._furthest:
            self._furthest = count
            self._thirst.set()

    def bill(self, ticket: Ticket, rule: Rule, usage: Usage) -> tuple[Rule, Usage]:
        if usage.requests:
            self._usage = usage
        others = [other for other in self._listeners if other is not ticket and not other.settled]
        if ticket is not self.payer:
            return (rule if rule in _UNANSWERED else Rule.CACHED), _NOTHING
        if others and (rule in (Rule.ABORTED, Rule.FAILED) or (rule is Rule.BROKEN and self.failure is None)):
            self.payer = others[0]
            return rule, _NOTHING
        if rule is Rule.FAILED:
            if self._usage is None:
                return rule, usage
            rule = Rule.ABORTED  # it gave up, its deadline perhaps, on a call that others were answered by
        self._paid = True
        if rule is Rule.ABORTED and self._usage is not None:
            usage = self._usage  # also what only those have read who are done and paid nothing
        return rule, usage

    async def leave(self, ticket: Ticket) -> None:
        self._listeners.remove(ticket)
        if ticket is self.payer and not ticket.settled and self._listeners:
            self.payer = next((other for other in self._listeners if not other.settled), ticket)
        if self._listeners:
            return
        self._landed()
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _fly(self, send: Callable[[], Awaitable[Reply]]) -> None:
        try:
            self.reply = await send()
            self._wake()
            async for chunk in self.reply.chunks():
                self.chunks.append(chunk)
                self._ends.append(self._size + len(chunk))
                self._wake()
                while self._size - self._taken_bytes > _AHEAD_BYTES:
                    self._thirst.clear()
                    await self._thirst.wait()
        except Exception as error:  # also a fault of ours: it must reach those who wait
            self.failure = error
        finally:
            self.over = True
            self._wake()
            if self.reply is not None:
                await self.reply.aclose()

    @property
    def _taken_bytes(self) -> int:
        return self._ends[self._furthest - 1] if self._furthest else 0

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
