"""A full model's queue: fair between teams, interactive keys before batch, nobody forever.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) in two classes. A team's tag says how much of the
model's time it has had, divided by its weight; the waiting team with the lowest tag is next. How long a call
takes is known only when it has ended: it is counted as the average at its start, and corrected then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from trilith.errors import InternalServerError

_PATIENCE = 8
"""So many interactive requests may pass a waiting batch request; then it is served."""
_FIRST_GUESS_S = 1.0
_NEWEST = 0.1
"""How much the newest call counts in the average time of a call."""


class Ticket:
    """A place at the model, or a place in the queue for one."""

    __slots__ = ("_gate", "batch", "expected_s", "place", "started", "team", "weight")

    def __init__(self, gate: Gate, team: str, weight: int, batch: bool) -> None:
        self._gate: Gate | None = gate
        self.team = team
        self.weight = weight
        self.batch = batch
        self.place: asyncio.Future[None] | None = None
        """Done when the place is there; None for one that did not wait."""
        self.started = 0.0
        self.expected_s = 0.0

    def leave(self) -> None:
        """Give the place to the next one; a second time it does nothing."""
        if self._gate is not None:
            gate, self._gate = self._gate, None
            gate.left(self)


class _Class:
    """The teams whose requests are of one class."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[Ticket]] = {}
        """Teams that wait; none of the queues is empty."""
        self.tags: dict[str, float] = {}
        self.now = 0.0
        """The tag of the request that was begun last."""

    def start(self, ticket: Ticket, expected_s: float) -> None:
        tag = max(self.tags.get(ticket.team, 0.0), self.now)
        self.now = tag
        self.tags[ticket.team] = tag + expected_s / ticket.weight
        ticket.expected_s = expected_s

    def end(self, ticket: Ticket, took_s: float) -> None:
        tag = self.tags.get(ticket.team, self.now) + (took_s - ticket.expected_s) / ticket.weight
        if tag > self.now or ticket.team in self.queues:
            self.tags[ticket.team] = tag
        else:  # it has nothing to its debit that anybody else has not
            self.tags.pop(ticket.team, None)

    def push(self, ticket: Ticket) -> None:
        self.queues.setdefault(ticket.team, deque()).append(ticket)

    def pop(self) -> Ticket:
        team = min(self.queues, key=lambda name: max(self.tags.get(name, 0.0), self.now))
        ticket = self.queues[team][0]
        self.remove(ticket)
        return ticket

    def remove(self, ticket: Ticket) -> None:
        queue = self.queues[ticket.team]
        queue.remove(ticket)
        if not queue:
            del self.queues[ticket.team]

    def longest(self) -> deque[Ticket]:
        return max(self.queues.values(), key=len)


class Gate:
    """Lets so many calls through to a model at once; the others wait."""

    def __init__(
        self, places: int, queue: int, wait_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open.

        Args:
            places: Most calls at once.
            queue: Most that wait.
            wait_s: Longest wait (seconds).
            clock: Measures how long calls take.
        """
        self.adopt(places, queue, wait_s)
        self._clock = clock
        self._classes = (_Class(), _Class())
        self._passed = 0
        self._average_s = _FIRST_GUESS_S
        self.open = 0
        """Calls under way."""
        self.waiting = 0

    def adopt(self, places: int, queue: int, wait_s: float) -> None:
        """Change the numbers; those who are there stay."""
        self.places, self.queue, self.wait_s = places, queue, wait_s

    def enter(self, team: str, weight: int, *, batch: bool) -> Ticket | Awaitable[Ticket]:
        """Return a place, or what waits for it.

        Raises:
            InternalServerError: 503, the queue is full or the wait was too long.
        """
        ticket = Ticket(self, team, weight, batch)
        if self.open < self.places and not self.waiting:
            self._begin(ticket)
            return ticket
        if self.waiting >= self.queue:
            self._make_room(ticket)
        return self._wait(ticket)

    async def _wait(self, ticket: Ticket) -> Ticket:
        loop = asyncio.get_running_loop()
        ticket.place = place = loop.create_future()
        self._classes[ticket.batch].push(ticket)
        self.waiting += 1
        self._fill()  # the gate may have been widened
        expiry = loop.call_later(self.wait_s, self._drop, ticket, "the longest wait is over")
        try:
            await place
        except asyncio.CancelledError:  # the caller has left; perhaps just when its turn came
            if place.done() and not place.cancelled() and place.exception() is None:
                ticket.leave()
            else:
                self._forget(ticket)
            raise
        finally:
            expiry.cancel()
        return ticket

    def left(self, ticket: Ticket) -> None:
        """A call has ended; the next one begins."""
        took_s = self._clock() - ticket.started
        self._average_s += _NEWEST * (took_s - self._average_s)
        self._classes[ticket.batch].end(ticket, took_s)
        self.open -= 1
        self._fill()

    def _begin(self, ticket: Ticket) -> None:
        self.open += 1
        ticket.started = self._clock()
        self._classes[ticket.batch].start(ticket, self._average_s)

    def _fill(self) -> None:
        while self.open < self.places and self.waiting:
            interactive, batch = self._classes
            if interactive.queues and not (batch.queues and self._passed >= _PATIENCE):
                ticket = interactive.pop()
                self._passed += bool(batch.queues)
            else:
                ticket = batch.pop()
                self._passed = 0
            self.waiting -= 1
            if ticket.place is not None and not ticket.place.done():  # else its caller has just left
                self._begin(ticket)
                ticket.place.set_result(None)

    def _make_room(self, newcomer: Ticket) -> None:
        """Send away the newest of whoever has most waiting, batch first; that may be the newcomer."""
        interactive, batch = self._classes
        crowd = batch if batch.queues else interactive
        if not crowd.queues or (newcomer.batch and crowd is interactive):
            raise self._full("its queue is full")
        longest = crowd.longest()
        mine = crowd.queues.get(newcomer.team, ())
        if newcomer.batch == longest[0].batch and len(mine) + 1 >= len(longest):
            raise self._full("its queue is full")
        self._drop(longest[-1], "its queue is full")

    def _drop(self, ticket: Ticket, reason: str) -> None:
        if ticket.place is not None and not ticket.place.done():
            self._forget(ticket)
            ticket.place.set_exception(self._full(reason))

    def _forget(self, ticket: Ticket) -> None:
        queue = self._classes[ticket.batch].queues.get(ticket.team, ())
        if ticket in queue:
            self._classes[ticket.batch].remove(ticket)
            self.waiting -= 1

    def _full(self, reason: str) -> InternalServerError:
        wait = (self.waiting + 1) * self._average_s / self.places
        return InternalServerError(
            f"The model takes {self.places} calls at once, and {reason}. Try again in a moment.",
            status_code=503,
            code="model_overloaded",
            type="server_error",
            retry_after_s=min(60.0, max(1.0, wait)),
        )
