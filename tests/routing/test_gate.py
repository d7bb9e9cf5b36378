"""Shares of a full model, in virtual time: an upstream that takes as long as the script says."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from routing import virtual

from trilith.errors import InternalServerError
from trilith_gateway.routing.gate import Gate, Ticket


async def enter(gate: Gate, team: str, weight: int = 1, *, batch: bool = False) -> Ticket:
    found = gate.enter(team, weight, batch=batch)
    return await found if isinstance(found, Awaitable) else found


def open_gate(places: int = 1, queue: int = 1000, wait_s: float = 10_000) -> Gate:
    return Gate(places, queue, wait_s, clock=virtual.now)


async def served(
    gate: Gate, callers: dict[tuple[str, int, bool], tuple[int, Callable[[], float]]], seconds: float
) -> Counter[str]:
    """Let callers, so many of each team, call again and again; returns each team's time at the model."""
    time: Counter[str] = Counter()

    async def caller(team: str, weight: int, batch: bool, takes: Callable[[], float]) -> None:
        while True:
            ticket = await enter(gate, team, weight, batch=batch)
            lasted = takes()
            try:
                await asyncio.sleep(lasted)
            finally:
                ticket.leave()
            time[team] += int(lasted * 1000)

    tasks = [
        asyncio.create_task(caller(team, weight, batch, takes))
        for (team, weight, batch), (count, takes) in callers.items()
        for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return time


def share(time: Counter[str], team: str) -> float:
    return time[team] / time.total()


def second() -> float:
    return 1.0


def test_a_team_with_many_callers_gets_no_more_than_one_with_few() -> None:
    callers = {("many", 1, False): (40, second), ("few", 1, False): (4, second)}
    time = virtual.run(served(open_gate(places=4), callers, 2_000))
    assert share(time, "few") == pytest.approx(0.5, abs=0.01)


def test_weights_are_kept() -> None:
    callers = {(name, weight, False): (20, second) for name, weight in (("a", 1), ("b", 2), ("c", 5))}
    time = virtual.run(served(open_gate(places=4), callers, 4_000))
    assert [share(time, name) for name in "abc"] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_teams_share_time_and_not_calls() -> None:
    rng = random.Random(1)
    callers = {
        ("long", 1, False): (10, lambda: rng.uniform(5, 15)),
        ("short", 1, False): (10, lambda: rng.uniform(0.1, 0.5)),
    }
    time = virtual.run(served(open_gate(places=2), callers, 20_000))
    assert share(time, "long") == pytest.approx(0.5, abs=0.03)


def test_what_one_team_leaves_the_others_take() -> None:
    callers = {("idle", 100, False): (1, second), ("busy", 1, False): (20, second)}
    time = virtual.run(served(open_gate(places=4), callers, 2_000))
    assert time.total() == pytest.approx(4 * 2_000 * 1000, rel=0.01)


def test_interactive_requests_go_before_batch_which_is_not_starved() -> None:
    callers = {("people", 1, False): (20, second), ("jobs", 1, True): (20, second)}
    time = virtual.run(served(open_gate(places=2), callers, 3_000))
    assert share(time, "jobs") == pytest.approx(1 / 9, abs=0.01)


def test_a_team_that_was_alone_for_long_is_not_made_to_wait_for_it_later() -> None:
    async def main() -> Counter[str]:
        gate = open_gate()
        await served(gate, {("old", 1, False): (5, second)}, 1_000)
        return await served(gate, {("old", 1, False): (5, second), ("new", 1, False): (5, second)}, 1_000)

    assert share(virtual.run(main()), "old") == pytest.approx(0.5, abs=0.01)


def test_no_more_calls_are_under_way_than_there_are_places() -> None:
    async def main() -> int:
        gate, most, under_way = open_gate(places=3), 0, 0

        async def caller(rng: random.Random) -> None:
            nonlocal most, under_way
            ticket = await enter(gate, rng.choice("abc"), batch=rng.random() < 0.3)
            under_way += 1
            most = max(most, under_way)
            try:
                await asyncio.sleep(rng.random())
            finally:
                under_way -= 1
                ticket.leave()
                ticket.leave()  # once more changes nothing

        rng = random.Random(3)
        tasks = [asyncio.create_task(caller(rng)) for _ in range(300)]
        for task in rng.sample(tasks, 60):
            await asyncio.sleep(0.3)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (gate.open, gate.waiting) == (0, 0)
        return most

    assert virtual.run(main()) == 3


def test_a_caller_that_leaves_is_out_of_the_queue_at_once() -> None:
    async def main() -> None:
        gate = open_gate()
        first = await enter(gate, "a")
        waiting = [asyncio.create_task(enter(gate, "b")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert gate.waiting == 2
        waiting[1].cancel()
        first.leave()  # in the same tick: the place must not go to who has left
        assert await waiting[2]
        assert (gate.open, gate.waiting) == (1, 0)

    virtual.run(main())


def test_a_caller_that_leaves_just_when_its_turn_came_hands_its_place_on() -> None:
    async def main() -> None:
        gate = open_gate()
        first = await enter(gate, "a")
        second, third = (asyncio.create_task(enter(gate, "b")) for _ in range(2))
        await asyncio.sleep(0)
        first.leave()
        second.cancel()
        assert await third
        assert (gate.open, gate.waiting) == (1, 0)

    virtual.run(main())


def test_the_longest_wait_ends_in_a_refusal_that_says_when_to_come_again() -> None:
    async def main() -> InternalServerError:
        gate = open_gate(wait_s=7)
        await enter(gate, "a")
        with pytest.raises(InternalServerError) as caught:
            await enter(gate, "b")
        assert (virtual.now(), gate.waiting) == (7, 0)
        return caught.value

    error = virtual.run(main())
    assert (error.status_code, error.code) == (503, "model_overloaded")
    assert error.retry_after_s is not None
    assert error.retry_after_s >= 1


def test_a_full_queue_sends_away_the_team_that_fills_it_and_batch_first() -> None:
    async def main() -> list[str]:
        gate = open_gate(queue=4)
        await enter(gate, "x")
        greedy = [asyncio.create_task(enter(gate, "greedy")) for _ in range(3)]
        batch = asyncio.create_task(enter(gate, "jobs", batch=True))
        await asyncio.sleep(0)
        refused = []
        modest = []
        for name in ("modest", "modest", "modest", "greedy"):
            try:
                found = gate.enter(name, 1, batch=False)
            except InternalServerError:
                refused.append(name)
            else:
                assert isinstance(found, Awaitable)
                modest.append(asyncio.ensure_future(found))
            await asyncio.sleep(0)
        refused += [name for name, task in (("jobs", batch), ("greedy", greedy[2])) if task.done()]
        for task in (*greedy, batch, *modest):
            task.cancel()
        await asyncio.gather(*greedy, batch, *modest, return_exceptions=True)
        return refused

    assert virtual.run(main()) == ["modest", "greedy", "jobs", "greedy"]


def test_a_wider_gate_lets_those_who_wait_in() -> None:
    async def main() -> None:
        gate = open_gate()
        await enter(gate, "a")
        waiting = asyncio.create_task(enter(gate, "a"))
        await asyncio.sleep(0)
        gate.adopt(3, 10, 10)
        assert await enter(gate, "b")
        assert await waiting

    virtual.run(main())
