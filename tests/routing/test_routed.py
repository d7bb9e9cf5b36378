"""Replicas: who is asked, what is tried again, and what never happens."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trilith.errors import APIConnectionError, APITimeoutError, InternalServerError
from trilith.seams import Call, Tried
from trilith.testing import MemoryUpstream
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.pressure import pressure
from trilith_gateway.routing.routed import Limits, RoutedUpstream

CALL = Call("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "hi"}]}', timeout_s=30)


class Clock:
    """Seconds that pass when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fleet(
    *upstreams: MemoryUpstream,
    clock: Clock | None = None,
    choose: policy.Choose = policy.weighted,
    **limits: Any,
) -> RoutedUpstream:
    endpoints = [Endpoint(str(at), upstream) for at, upstream in enumerate(upstreams)]
    return RoutedUpstream(endpoints, choose, limits=Limits(**limits), clock=clock, rng=random.Random(1))


async def ask(routed: RoutedUpstream, call: Call = CALL) -> int:
    reply = await routed.send(call)
    assert b"".join([part async for part in reply.chunks()])
    return reply.status


def sent(routed: RoutedUpstream) -> list[int]:
    return [len(e.upstream.calls) for e in routed.endpoints]  # type: ignore[attr-defined]


async def test_no_request_is_lost_that_another_replica_can_serve() -> None:
    routed = fleet(
        MemoryUpstream(fail_with=[APIConnectionError("away")] * 1000), MemoryUpstream(), retry_share=1
    )
    assert [await ask(routed) for _ in range(200)] == [200] * 200
    assert sent(routed)[0] < 20  # the breaker keeps most away from the dead one


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_answer_that_another_may_better_is_asked_for_elsewhere(status: int) -> None:
    routed = fleet(MemoryUpstream(fail_with=[status]), MemoryUpstream())
    assert await ask(routed) == 200
    assert sent(routed) == [1, 1]


def raised(status: int) -> InternalServerError:
    return InternalServerError("cannot be opened", status_code=status)


async def test_a_replica_that_raises_its_status_counts_as_one_that_answers_with_it() -> None:
    routed = fleet(MemoryUpstream(fail_with=[raised(503)] * 9), MemoryUpstream(), retry_share=1)
    assert [await ask(routed) for _ in range(20)] == [200] * 20
    assert sent(routed)[0] < 9  # its breaker opens too
    assert not routed.endpoints[0].outstanding


async def test_a_raised_failure_may_have_been_acted_upon_and_a_raised_refusal_not() -> None:
    once = replace(CALL, repeatable=False)
    assert await ask(fleet(MemoryUpstream(fail_with=[raised(503)]), MemoryUpstream()), once) == 200
    with pytest.raises(InternalServerError):
        await ask(fleet(MemoryUpstream(fail_with=[raised(500)]), MemoryUpstream()), once)


async def test_what_all_replicas_raise_is_not_to_be_tried_again() -> None:
    routed = fleet(MemoryUpstream(fail_with=[raised(503)]), MemoryUpstream(fail_with=[raised(503)]))
    with pytest.raises(InternalServerError) as told:
        await ask(routed)
    assert not told.value.retryable
    assert sent(routed) == [1, 1]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_the_callers_own_mistakes_are_not_tried_again(status: int) -> None:
    routed = fleet(MemoryUpstream(fail_with=[status]), MemoryUpstream())
    assert await ask(routed) == status
    assert sent(routed) == [1, 0]


async def test_a_timeout_is_not_tried_again() -> None:
    routed = fleet(MemoryUpstream(fail_with=[APITimeoutError("slow")]), MemoryUpstream())
    with pytest.raises(APITimeoutError):
        await ask(routed)
    assert sum(sent(routed)) == 1


async def test_retries_stay_a_share_of_the_requests() -> None:
    failing = [MemoryUpstream(fail_with=[500] * 10_000) for _ in range(2)]
    routed = fleet(*failing, retry_share=0.1)
    for endpoint in routed.endpoints:
        endpoint.breaker.failures_to_open = 10**9
    for _ in range(1000):
        await ask(routed)
    assert sum(sent(routed)) <= 1000 * 1.1 + 10


async def test_a_replica_that_asks_for_rest_gets_it() -> None:
    clock = Clock()
    routed = fleet(MemoryUpstream(fail_with=[503]), MemoryUpstream(), clock=clock)
    routed.endpoints[0].breaker.rest(clock.now + 5)
    for _ in range(4):
        await ask(routed)
    assert sent(routed) == [0, 4]
    clock.now += 5
    await ask(routed)
    assert sent(routed)[0] == 1


async def test_when_no_replica_may_be_asked_the_caller_is_told_when() -> None:
    clock = Clock()
    routed = fleet(MemoryUpstream(), clock=clock)
    routed.endpoints[0].breaker.rest(clock.now + 7)
    with pytest.raises(InternalServerError) as caught:
        await ask(routed)
    assert (caught.value.status_code, caught.value.retry_after_s) == (503, 7)


def test_a_breaker_lets_one_probe_through_and_closes_when_it_succeeds() -> None:
    breaker = Breaker(failures_to_open=3, pause_s=1)
    for _ in range(3):
        breaker.fail(10.0)
    assert not breaker.allows(10.5)
    assert breaker.allows(11.0)
    breaker.begin(11.0)
    assert not breaker.allows(11.0)
    breaker.fail(11.0)
    assert not breaker.allows(12.9)  # the pause has doubled
    assert breaker.allows(13.0)
    breaker.begin(13.0)
    breaker.succeed()
    assert breaker.allows(13.0)


async def test_a_caller_who_leaves_frees_the_probe_and_the_place() -> None:
    routed = fleet(MemoryUpstream(delay_s=60))
    work = asyncio.create_task(ask(routed))
    await asyncio.sleep(0.01)
    assert routed.endpoints[0].outstanding == 1
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert routed.endpoints[0].outstanding == 0
    assert not routed.endpoints[0].breaker.probing


async def test_a_hedge_takes_the_first_answer_and_aborts_the_other() -> None:
    slow, quick = MemoryUpstream(delay_s=60), MemoryUpstream()
    routed = fleet(slow, quick, hedge_share=0.5)
    routed._heads.extend([0.01] * 50)
    assert await ask(routed) == 200
    assert (slow.aborted, len(quick.calls)) == (1, 1)
    assert [endpoint.outstanding for endpoint in routed.endpoints] == [0, 0]


async def test_hedges_stay_a_share_of_the_requests() -> None:
    slow = [MemoryUpstream(delay_s=0.02) for _ in range(2)]
    routed = fleet(*slow, hedge_share=0.1)
    for _ in range(60):
        routed._heads.extend([0.001] * 50)
        await ask(routed)
    assert 60 < sum(sent(routed)) <= 60 * 1.1 + 3


async def test_what_is_left_of_the_time_travels_on() -> None:
    clock = Clock()

    class Late(MemoryUpstream):
        async def send(self, call: Call) -> Any:
            self.calls.append(call)
            clock.now += 10
            raise APIConnectionError("away")

    routed = fleet(Late(), Late(), clock=clock)
    with pytest.raises(APIConnectionError):
        await ask(routed)
    assert [e.upstream.calls[0].timeout_s for e in routed.endpoints] == [30, 20]  # type: ignore[attr-defined]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_weights_are_kept_exactly_over_a_round(weights: list[int]) -> None:
    endpoints = [Endpoint(str(at), MemoryUpstream(), weight) for at, weight in enumerate(weights)]
    chosen = Counter(policy.weighted(endpoints, None).name for _ in range(sum(weights) * 3))
    assert [chosen[e.name] for e in endpoints] == [weight * 3 for weight in weights]


@given(st.integers(2, 6), st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=60), st.randoms())
def test_the_prefix_policy_never_goes_over_its_bound(
    count: int, keys: list[bytes], rng: random.Random
) -> None:
    endpoints = [Endpoint(str(at), MemoryUpstream()) for at in range(count)]
    choose = policy.Prefix(rng, bound=1.25)
    for total, key in enumerate(keys, 1):
        choose(endpoints, key).outstanding += 1
        assert max(e.outstanding for e in endpoints) <= -(-1.25 * total // count)


def test_the_same_beginning_goes_to_the_same_replica_and_few_move_when_one_leaves() -> None:
    endpoints = [Endpoint(str(at), MemoryUpstream()) for at in range(5)]
    choose = policy.Prefix(random.Random(1))
    keys = [f"conversation {n}".encode() for n in range(400)]
    before = {key: choose(endpoints, key).name for key in keys}
    assert before == {key: choose(endpoints, key).name for key in keys}
    after = {key: choose(endpoints[:-1], key).name for key in keys}
    moved = [key for key in keys if before[key] != after[key]]
    assert {before[key] for key in moved} == {"4"}


async def test_a_slow_replica_gets_little() -> None:
    rng = random.Random(3)
    endpoints = [Endpoint("slow", MemoryUpstream()), *(Endpoint(str(n), MemoryUpstream()) for n in range(3))]
    for endpoint in endpoints:
        endpoint.observe(1.0 if endpoint.name == "slow" else 0.05, 0.0)
    choose = policy.power_of_two(rng)
    chosen = Counter(choose(endpoints, None).name for _ in range(2000))
    assert chosen["slow"] < 20


def test_an_engine_where_requests_wait_counts_as_busy() -> None:
    idle = b'vllm:num_requests_waiting{engine="0"} 0.0\nvllm:kv_cache_usage_perc{engine="0"} 0.1\n'
    busy = b'vllm:num_requests_waiting{engine="0"} 4.0\nvllm:kv_cache_usage_perc{engine="0"} 0.95\n'
    assert pressure(idle) == 1
    assert pressure(busy) == pytest.approx(6.5)
    assert pressure(b"") == 1


class Slow(MemoryUpstream):
    """Waits before it answers."""

    wait_s = 0.0

    async def send(self, call: Call) -> Any:
        await asyncio.sleep(self.wait_s)
        return await super().send(call)


async def silenced(count: int, hedge_share: float) -> tuple[RoutedUpstream, list[asyncio.Task[int]]]:
    """Send more requests than may be hedged at once; half come to a replica that has fallen silent."""
    silent, well = Slow(), MemoryUpstream()
    routed = fleet(silent, well, choose=policy.least_outstanding, hedge_share=hedge_share, retry_share=0)
    for _ in range(60):
        assert await ask(routed) == 200
    silent.wait_s = 3600
    return routed, [asyncio.create_task(ask(routed)) for _ in range(count)]


async def test_a_request_that_may_not_be_hedged_yet_is_as_soon_as_others_have_filled_the_share() -> None:
    """A replica that falls silent must not keep what came to it."""
    routed, held = await silenced(16, hedge_share=0.5)
    async with asyncio.timeout(20):
        while not all(task.done() for task in held):
            assert await ask(routed) == 200  # as others come, and the well replica has the fewest
            await asyncio.sleep(0.01)
    assert [task.result() for task in held] == [200] * 16


async def test_a_request_that_may_not_be_hedged_yet_is_after_a_while_though_no_other_comes() -> None:
    _, held = await silenced(12, hedge_share=0.1)
    async with asyncio.timeout(20):
        assert await asyncio.gather(*held) == [200] * 12


async def test_a_replica_that_falls_silent_after_it_has_answered_another_keeps_nothing() -> None:
    routed, held = await silenced(8, hedge_share=1e-6)
    await asyncio.sleep(0)
    routed.endpoints[0].observe(0.001, time.monotonic() + 0.1)  # the last that it answered
    async with asyncio.timeout(20):
        assert await asyncio.gather(*held) == [200] * 8


class Uneven(MemoryUpstream):
    """Thinks for long about some requests, and answers others meanwhile."""

    long = 0

    async def send(self, call: Call) -> Any:
        if b"long" in call.body:
            self.long += 1
            await asyncio.sleep(2.6)
        return await super().send(call)


async def test_a_replica_that_is_slow_at_some_and_answers_others_is_hedged_by_the_share_alone() -> None:
    one, other = Uneven(), Uneven()
    routed = fleet(one, other, hedge_share=1e-6, retry_share=0)
    for _ in range(60):
        assert await ask(routed) == 200
    call = replace(CALL, body=CALL.body.replace(b"hi", b"long"))
    held = [asyncio.create_task(ask(routed, call)) for _ in range(8)]
    while not all(task.done() for task in held):
        assert await ask(routed) == 200
        await asyncio.sleep(0.01)
    assert [task.result() for task in held] == [200] * 8
    assert one.long + other.long <= 8 + 3  # what may be hedged at once


async def test_what_cannot_be_sent_is_asked_elsewhere_however_little_may_be_retried() -> None:
    away = APIConnectionError("refused", sent=False)
    routed = fleet(MemoryUpstream(fail_with=[away] * 1000), MemoryUpstream(), retry_share=0)
    assert [await ask(routed) for _ in range(50)] == [200] * 50


async def test_what_may_have_been_sent_is_not_tried_beyond_the_share() -> None:
    broken = APIConnectionError("broke off")
    routed = fleet(MemoryUpstream(fail_with=[broken] * 1000), MemoryUpstream(), retry_share=0)
    with pytest.raises(APIConnectionError):
        await ask(routed)


class Broken(MemoryUpstream):
    """Breaks off after it has said something."""

    def __init__(self, received: bytes, delay_s: float = 0.0) -> None:
        super().__init__()
        self._received, self._wait_s = received, delay_s

    async def send(self, call: Call) -> Any:
        self.calls.append(call)
        await asyncio.sleep(self._wait_s)
        error = APIConnectionError("broke off")
        error.received = self._received
        raise error


async def test_of_two_that_were_asked_at_once_and_both_failed_each_is_told() -> None:
    """What one of them had used by then is charged, though the request goes on with the other's failure."""
    told: list[Tried] = []
    routed = fleet(Broken(b"one", 0.05), Broken(b"two", 0.05), hedge_share=0.5, attempts=2)
    routed._heads.extend([0.01] * 50)
    with pytest.raises(APIConnectionError) as caught:
        await ask(routed, replace(CALL, tried=told.append))
    assert sorted([caught.value.received, *(one.body for one in told)]) == [b"one", b"two"]
    assert {caught.value.upstream, *(one.upstream for one in told)} == {"0", "1"}


async def test_an_error_that_was_billed_is_told_though_the_other_of_two_broke_off_last() -> None:
    told: list[Tried] = []
    billed = Slow(fail_with=[500])
    billed.wait_s = 0.03
    routed = fleet(billed, Broken(b"", 0.1), hedge_share=0.5, attempts=2)
    routed._heads.extend([0.01] * 50)
    with pytest.raises(APIConnectionError):
        await ask(routed, replace(CALL, tried=told.append))
    assert [(one.upstream, one.status) for one in told] == [("0", 500)]
