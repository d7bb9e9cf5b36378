"""Calls that are under way are shared: whoever leaves whenever, the others get all, and exactly one pays."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilith.errors import APIConnectionError
from trilith.testing import MemoryReply
from trilith.types import Usage
from trilith_gateway.caching.flight import Flights, Ticket
from trilith_gateway.rule import Rule

CHUNKS = [b"one ", b"two ", b"three ", b"end"]
NOTHING = Usage(requests=0)


@dataclass
class Model:
    """An upstream that says its next word when it is let."""

    calls: int = 0
    aborted: int = 0
    fail_with: list[Exception] = field(default_factory=list)
    steps: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def send(self) -> MemoryReply:
        self.calls += 1
        if self.fail_with:
            raise self.fail_with.pop(0)
        try:
            await self.steps.acquire()
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        return MemoryReply(200, self._words(), on_abort=self._abort)

    async def _words(self) -> AsyncIterator[bytes]:
        for word in CHUNKS:
            await self.steps.acquire()
            yield word

    def _abort(self) -> None:
        self.aborted += 1


@dataclass
class Caller:
    """What a request does with its ticket: reads, is charged, leaves, or is cut off anywhere in between."""

    ticket: Ticket
    read: list[bytes] = field(default_factory=list)
    charge: tuple[Rule, Usage] | None = None

    async def run(self) -> None:
        try:
            await self.ticket.head()
            async for chunk in self.ticket.chunks():
                self.read.append(chunk)
            self.settle(Rule.USAGE)
        except asyncio.CancelledError:
            self.settle(Rule.ABORTED)
            raise
        finally:
            await self.ticket.aclose()

    def settle(self, rule: Rule) -> None:
        known = Usage(output_tokens=len(self.read)) if self.read else NOTHING
        self.charge = self.ticket.bill(rule, known)


async def settle_down() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


ACTIONS = st.lists(
    st.one_of(st.just(("come", 0)), st.just(("say", 0)), st.tuples(st.just("leave"), st.integers(0, 5))),
    max_size=24,
)


@settings(deadline=None, max_examples=300)
@given(ACTIONS)
def test_whoever_comes_and_leaves_whenever_the_rest_get_all_and_one_pays(
    actions: list[tuple[str, int]],
) -> None:
    asyncio.run(_play(actions))


async def _play(actions: list[tuple[str, int]]) -> None:
    model, flights = Model(), Flights()
    callers: list[tuple[Caller, asyncio.Task[None]]] = []
    gone: set[int] = set()
    for action, number in [("come", 0), *actions]:
        if action == "come":
            caller = Caller(flights.board("key", model.send))
            callers.append((caller, asyncio.create_task(caller.run())))
        elif action == "say":
            model.steps.release()
        elif number < len(callers):
            gone.add(number)
            callers[number][1].cancel()
        await settle_down()
    for _ in range(len(CHUNKS) * len(callers) + 8):
        model.steps.release()
        await settle_down()
    for _, task in callers:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    paid: Counter[int] = Counter()
    finished: set[int] = set()
    for number, (caller, task) in enumerate(callers):
        assert caller.charge is not None
        rule, usage = caller.charge
        flight = id(caller.ticket._flight)
        paid[flight] += usage.requests > 0
        if not task.cancelled():
            assert caller.read == CHUNKS
            finished.add(flight)
            assert rule in (Rule.USAGE, Rule.CACHED)
            assert rule is Rule.CACHED or usage == Usage(output_tokens=len(CHUNKS))
        else:
            assert number in gone
    assert all(paid[flight] == 1 for flight in finished)
    assert max(paid.values()) <= 1
    assert len({id(caller.ticket._flight) for caller, _ in callers}) >= model.calls
    assert len(flights) == 0


async def test_the_call_is_aborted_when_nobody_listens_any_more() -> None:
    model, flights = Model(), Flights()
    callers = [Caller(flights.board("key", model.send)) for _ in range(2)]
    tasks = [asyncio.create_task(caller.run()) for caller in callers]
    model.steps.release()
    model.steps.release()
    await settle_down()
    tasks[0].cancel()
    await settle_down()
    assert model.aborted == 0
    tasks[1].cancel()
    await settle_down()
    assert (model.calls, model.aborted) == (1, 1)
    assert [caller.charge for caller in callers] == [
        (Rule.ABORTED, NOTHING),
        (Rule.ABORTED, Usage(output_tokens=1)),
    ]


async def test_one_who_leaves_after_the_others_have_finished_pays_for_what_they_read() -> None:
    model, flights = Model(), Flights()
    slow = flights.board("key", model.send)
    quick = Caller(flights.board("key", model.send))
    for _ in range(len(CHUNKS) + 1):
        model.steps.release()
    await quick.run()
    assert quick.charge == (Rule.CACHED, NOTHING)
    assert slow.bill(Rule.ABORTED, NOTHING) == (Rule.ABORTED, Usage(output_tokens=len(CHUNKS)))
    await slow.aclose()


async def test_one_who_fails_alone_leaves_the_bill_to_those_who_go_on() -> None:
    model, flights = Model(), Flights()
    first = flights.board("key", model.send)
    second = Caller(flights.board("key", model.send))
    assert first.bill(Rule.FAILED, NOTHING) == (Rule.FAILED, NOTHING)  # its own deadline has passed
    await first.aclose()
    for _ in range(len(CHUNKS) + 1):
        model.steps.release()
    await second.run()
    assert second.charge == (Rule.USAGE, Usage(output_tokens=len(CHUNKS)))


async def test_one_who_fails_after_the_others_were_answered_pays_for_them() -> None:
    model, flights = Model(), Flights()
    first = flights.board("key", model.send)
    second = Caller(flights.board("key", model.send))
    for _ in range(len(CHUNKS) + 1):
        model.steps.release()
    await second.run()
    assert second.charge == (Rule.CACHED, NOTHING)
    assert first.bill(Rule.FAILED, NOTHING) == (Rule.ABORTED, Usage(output_tokens=len(CHUNKS)))
    await first.aclose()


async def test_a_failure_reaches_all_and_who_comes_later_tries_anew() -> None:
    model, flights = Model(fail_with=[APIConnectionError("away")]), Flights()
    tickets = [flights.board("key", model.send) for _ in range(3)]
    for ticket in tickets:
        with pytest.raises(APIConnectionError, match="away"):
            await ticket.head()
    again = flights.board("key", model.send)
    assert again.led
    model.steps.release()
    await again.head()
    for ticket in (*tickets, again):
        await ticket.aclose()
    assert model.calls == 2


async def test_the_upstream_waits_for_the_fastest_listener() -> None:
    sent = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"x" * 65536

    async def send() -> MemoryReply:
        return MemoryReply(200, flood())

    flights = Flights()
    ticket = flights.board("key", send)
    await ticket.head()
    await settle_down()
    assert sent <= 6
    assert sum([len(chunk) async for chunk in ticket.chunks()]) == 64 * 65536
    await ticket.aclose()


async def test_what_all_have_read_of_an_answer_that_nobody_may_join_is_let_go() -> None:
    async def flood() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield b"x" * 65536

    async def send() -> MemoryReply:
        return MemoryReply(200, flood())

    flights = Flights()
    ticket = flights.board("key", send)
    await ticket.head()
    most = 0
    async for _ in ticket.chunks():
        most = max(most, sum(map(len, ticket._flight.chunks)))
    assert most <= 6 * 1024 * 1024
    await ticket.aclose()
