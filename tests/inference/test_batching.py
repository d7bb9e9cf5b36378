"""How concurrent calls share runs: by events, never by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith_classical.serving.batch import INLINE_NS, Batcher, Scored, shares
from trilith_classical.serving.codec import Array


class Threads(Executor):
    """Holds work back until a test lets it go on."""

    def __init__(self) -> None:
        self.work: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.work.append((future, lambda: fn(*given, **named)))
        return future

    async def go(self) -> None:
        future, run = self.work.pop(0)
        future.set_result(run())
        await asyncio.sleep(0)  # the result crosses over to the loop
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class Model:
    """Doubles its input; refuses negative numbers; takes `cost_ns` of the clock for a run."""

    def __init__(self, cost_ns: int) -> None:
        self.cost_ns = cost_ns
        self.now = 0
        self.sizes: list[int] = []

    def __call__(self, tensors: Mapping[str, Array]) -> list[Array]:
        self.sizes.append(len(tensors["x"]))
        self.now += self.cost_ns
        if (tensors["x"] < 0).any():
            raise ValueError("negative")
        return [tensors["x"] * 2]


def row(*values: float) -> dict[str, Array]:
    return {"x": np.array(values, dtype=np.float32).reshape(-1, 1)}


def make(model: Model, threads: Threads | None = None, **options: Any) -> Batcher:
    batcher = Batcher(model, lambda: threads or Threads(), clock_ns=lambda: model.now, **options)
    batcher.measure(row(0), 2)
    model.sizes.clear()
    return batcher


def slow(**options: Any) -> tuple[Model, Threads, Batcher]:
    model, threads = Model(INLINE_NS * 2), Threads()
    return model, threads, make(model, threads, **options)


def submit(batcher: Batcher, *values: float) -> asyncio.Future[Scored]:
    given = batcher.submit(row(*values), len(values))
    assert isinstance(given, asyncio.Future)
    return given


async def test_a_lone_call_to_a_quick_model_is_answered_at_once() -> None:
    given = make(Model(1000)).submit(row(4), 1)
    assert isinstance(given, Scored)
    assert given.arrays[0].tolist() == [[8.0]]


async def test_calls_in_the_same_turn_of_the_loop_share_the_second_run() -> None:
    model = Model(1000)
    batcher = make(model)
    first = batcher.submit(row(1), 1)
    others = [submit(batcher, value) for value in (2, 3, 4)]
    assert isinstance(first, Scored)
    assert [(await other).arrays[0].item() for other in others] == [4, 6, 8]
    assert model.sizes == [1, 3]


async def test_what_arrives_while_a_slow_model_runs_is_joined_into_the_next_run() -> None:
    model, threads, batcher = slow()
    first = submit(batcher, 1)
    assert len(threads.work) == 1, "the first call waits for nobody"
    second, third = submit(batcher, 2, 3), submit(batcher, 4)
    await threads.go()
    assert first.done()
    assert not second.done()
    await threads.go()
    assert (await second).arrays[0].tolist() == [[4], [6]]
    assert (await third).arrays[0].tolist() == [[8]]
    assert model.sizes == [1, 3]


async def test_a_faulty_call_does_not_hit_those_that_were_joined_with_it() -> None:
    model, threads, batcher = slow()
    submit(batcher, 1)
    good, bad, other = submit(batcher, 2), submit(batcher, -1), submit(batcher, 3)
    await threads.go()
    await threads.go()
    assert (await good).arrays[0].item() == 4
    assert (await other).arrays[0].item() == 6
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert (await good).cpu_ns == model.cost_ns + model.cost_ns // 3 + (model.cost_ns % 3 > 0)


async def test_a_run_is_no_larger_than_allowed() -> None:
    model, threads, batcher = slow(max_rows=3)
    calls = [submit(batcher, 1), submit(batcher, 2, 2), submit(batcher, 3), submit(batcher, 4, 4, 4, 4)]
    while threads.work:
        await threads.go()
    assert all(call.done() for call in calls)
    assert model.sizes == [1, 3, 4]


async def test_a_model_that_does_not_join_exactly_is_run_call_by_call() -> None:
    model, threads, batcher = slow(joins=False)
    calls = [submit(batcher, value) for value in (1, 2, 3)]
    while threads.work:
        await threads.go()
    assert all(call.done() for call in calls)
    assert model.sizes == [1, 1, 1]


async def test_a_caller_who_has_left_is_not_scored() -> None:
    model, threads, batcher = slow()
    first, second, third = submit(batcher, 1), submit(batcher, 2), submit(batcher, 3)
    second.cancel()
    await threads.go()
    await threads.go()
    assert (first.done(), third.done(), model.sizes) == (True, True, [1, 1])


async def test_the_parts_of_a_joined_run_cost_what_the_run_cost() -> None:
    model, threads, batcher = slow()
    submit(batcher, 0)
    calls = [submit(batcher, 1), submit(batcher, 2, 2), submit(batcher, 3, 3, 3, 3)]
    await threads.go()
    await threads.go()
    costs = [(await call).cpu_ns for call in calls]
    assert sum(costs) == model.cost_ns
    assert costs == shares(model.cost_ns, [1, 2, 4])


async def test_where_waiting_is_allowed_the_first_call_is_joined_too() -> None:
    model = Model(1000)
    batcher = make(model, max_wait_s=1e-9)
    calls = [submit(batcher, value) for value in (1, 2)]
    assert [(await call).arrays[0].item() for call in calls] == [2, 4]
    assert model.sizes == [2]


async def test_a_model_that_grows_slow_leaves_the_event_loop() -> None:
    model, threads = Model(1000), Threads()
    batcher = make(model, threads)
    model.cost_ns = INLINE_NS * 10
    assert isinstance(batcher.submit(row(1), 1), Scored)
    await asyncio.sleep(0)
    waiting = submit(batcher, 2)
    await threads.go()
    assert (await waiting).arrays[0].item() == 4


@given(st.integers(0, 10**12), st.lists(st.integers(1, 10**4), min_size=1, max_size=20))
def test_shares_add_up_and_are_never_a_unit_away_from_fair(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - total * weight) < sum(weights)
