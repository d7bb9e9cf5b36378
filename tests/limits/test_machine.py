"""Each limiter does what a plain model does: a bucket per number, a set of open requests, all or nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from limits.harness import Bench, Requests
from support.redis_server import RedisServer

from trilith_gateway.limits.memory import RateLimiter
from trilith_gateway.limits.shared import SharedRateLimiter
from trilith_gateway.terms import Rates

KEY = Rates("key:k", requests_per_minute=3, tokens_per_minute=600, max_concurrency=2)
TEAM = Rates("team:t", requests_per_minute=4, tokens_per_minute=1000, max_concurrency=3)
LEVELS = st.sampled_from(((KEY,), (TEAM,), (KEY, TEAM)))
SETTINGS = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Bucket:
    """So many a minute, a minute's worth at once."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.level = float(rate)

    def add(self, amount: float) -> None:
        self.level = min(self.rate, self.level + amount)


class Machine(RuleBasedStateMachine):
    """Requests of one key and of its team's other keys."""

    make: Callable[[], Bench]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.bench = self.make()
        self.requests = {level.account: Bucket(level.requests_per_minute or 0) for level in (KEY, TEAM)}
        self.tokens = {level.account: Bucket(level.tokens_per_minute or 0) for level in (KEY, TEAM)}
        self.open: list[Requests] = []

    @rule(seconds=st.sampled_from((0.25, 1, 7, 31)))
    def time_passes(self, seconds: float) -> None:
        self.bench.tick(seconds)
        self.runner.run(self.bench.keep())
        for bucket in (*self.requests.values(), *self.tokens.values()):
            bucket.add(seconds * bucket.rate / 60)

    @rule(rates=LEVELS)
    def a_request_comes(self, rates: tuple[Rates, ...]) -> None:
        buckets = [self.requests[level.account] for level in rates]
        fits = all(bucket.level >= 1 - 1e-6 for bucket in buckets)
        assert self.runner.run(self.bench.request(*rates)).allowed == fits
        for bucket in buckets if fits else ():
            bucket.level -= 1

    @rule(rates=LEVELS, tokens=st.integers(0, 400))
    def work_begins(self, rates: tuple[Rates, ...], tokens: int) -> None:
        buckets = [self.tokens[level.account] for level in rates]
        places = all(
            sum(level in held for held, _, _ in self.open) < (level.max_concurrency or 0) for level in rates
        )
        fits = places and all(bucket.level >= tokens - 1e-4 for bucket in buckets)
        request = self.runner.run(self.bench.begun(*rates, tokens=tokens))
        assert (request is not None) == fits
        if request is not None:
            self.open.append(request)
            for bucket in buckets:
                bucket.level -= tokens

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), share=st.integers(0, 100))
    def work_ends(self, which: int, share: int) -> None:
        request = self.open.pop(which % len(self.open))
        rates, _, taken = request
        used = taken * share // 100
        self.runner.run(self.bench.end(request, used))
        for level in rates:
            self.tokens[level.account].add(taken - used)

    def teardown(self) -> None:
        self.runner.run(self.bench.limiter.aclose())
        self.runner.close()


def machine(make: Callable[[], Bench]) -> type[Machine]:
    return type("LimiterMachine", (Machine,), {"make": staticmethod(make)})


def test_one_process_does_what_the_model_does() -> None:
    run_state_machine_as_test(machine(lambda: Bench(RateLimiter())), settings=SETTINGS)


def test_shared_memory_does_what_the_model_does() -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = iter(range(10**6))
        made = machine(lambda: Bench(SharedRateLimiter(Path(folder) / str(next(names)))))
        run_state_machine_as_test(made, settings=SETTINGS)


def test_redis_does_what_the_model_does(redis_server: RedisServer) -> None:
    run_state_machine_as_test(machine(lambda: Bench.on_redis(redis_server)), settings=SETTINGS)
