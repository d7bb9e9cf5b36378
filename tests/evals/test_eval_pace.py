"""Limits of a run: calls and tokens in a minute, its time, and calls under way when a server is full."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.paid_server import Shop, open_shop

import trilith_evals as evals
from trilith.types import Usage
from trilith_evals import Case, Means, Output
from trilith_evals.pace import Pace

CASES = [{"id": f"c{i}", "input": f"q{i}", "expected": f"q{i}"} for i in range(12)]


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


class Wordy:
    """A target that says how many tokens it took."""

    name, remote = "wordy", True

    def __init__(self) -> None:
        self.began: list[float] = []

    async def answer(self, case: Case) -> Output:
        self.began.append(time.monotonic())
        return Output(text=str(case.input), usage=Usage(input_tokens=60, output_tokens=40))

    async def aclose(self) -> None:
        pass


def test_calls_of_a_minute_are_spread_evenly() -> None:
    target = Wordy()
    report = evals.run(target, CASES, ["exact"], concurrency=12, means=Means(requests_per_minute=3000))
    assert report.exit_code == 0
    assert all(target.began[n] - target.began[0] >= n * 0.02 - 0.002 for n in range(12))


def test_tokens_of_a_minute_are_kept_once_an_answer_has_told_them() -> None:
    target = Wordy()  # 100 tokens a call, 300,000 a minute: 20 ms a call
    report = evals.run(target, CASES, ["exact"], concurrency=1, means=Means(tokens_per_minute=300_000))
    assert report.exit_code == 0
    assert target.began[-1] - target.began[0] >= 11 * 0.02 - 0.002


class Stuck(Wordy):
    """A target that never answers the first so many attempts at a case."""

    def __init__(self, attempts: int) -> None:
        super().__init__()
        self.attempts = attempts
        self.asked: Counter[str] = Counter()

    async def answer(self, case: Case) -> Output:
        self.asked[case.id] += 1
        if self.asked[case.id] <= self.attempts:
            await asyncio.sleep(60)
        return await super().answer(case)


def test_an_attempt_that_hangs_is_given_up_for_another() -> None:
    target = Stuck(1)
    means = Means(attempt_timeout_s=0.1)
    (found,) = evals.run(target, CASES[:2], ["exact"], timeout_s=20, means=means).suites
    assert [row.failure for row in found.rows] == [None, None]
    assert set(target.asked.values()) == {2}


def test_what_hangs_at_every_attempt_is_told_with_the_time_of_one() -> None:
    target = Stuck(9)
    means = Means(attempt_timeout_s=0.1, max_retries=1)
    (found,) = evals.run(target, CASES[:1], ["exact"], timeout_s=20, means=means).suites
    assert found.figures[0].reasons == {"no answer within 0.1 s": 1}
    assert target.asked["c0"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_retries": -1}, "max_retries is -1, expected 0 or more"),
        ({"attempt_timeout_s": 0.0}, "attempt_timeout_s is 0.0, expected more than 0"),
        ({"run_timeout_s": float("nan")}, "run_timeout_s is nan, expected more than 0"),
        ({"max_cost_pico_usd": -5}, "max_cost_pico_usd is -5, expected 0 or more"),
        ({"requests_per_minute": 0.0}, "requests_per_minute is 0.0, expected more than 0"),
    ],
)
def test_limits_that_nothing_can_be_done_under_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Means(**given)


@pytest.mark.parametrize("attempt_timeout_s", [None, 0.3, 9.0])
def test_the_time_of_a_call_bounds_its_attempts(attempt_timeout_s: float | None) -> None:
    target = Stuck(9)
    means = Means(attempt_timeout_s=attempt_timeout_s)
    (found,) = evals.run(target, CASES[:1], ["exact"], timeout_s=0.3, means=means).suites
    assert found.figures[0].reasons == {"no answer within 0.3 s": 1}
    assert target.asked["c0"] == 1


def test_a_run_whose_time_is_over_reports_what_is_done(shop: Shop) -> None:
    shop.delay_s = 0.2
    means = Means(run_timeout_s=0.5)
    (found,) = evals.run(
        "tiny", CASES, ["exact"], base_url=shop.url, api_key="k", concurrency=2, means=means
    ).suites
    assert found.stopped
    assert found.stopped.reason == "the run's 0.5 s are over"
    assert 0 < found.figures[0].scored < 12 == len(found.rows)


def heard(pace: Pace, seconds: list[float]) -> int:
    for one in seconds:
        pace.well(one)
    return pace.limit


async def test_calls_under_way_are_halved_when_answers_come_twice_as_late() -> None:
    pace = Pace(16)
    assert heard(pace, [0.1] * 60) == 16
    assert heard(pace, [0.3] * 20) == 8
    assert heard(pace, [0.1] * 200) == 16


async def test_long_and_short_answers_are_no_sign_of_a_full_server() -> None:
    rng, pace = random.Random(1), Pace(16)
    assert heard(pace, [rng.lognormvariate(0, 1) for _ in range(2000)]) == 16


async def test_a_model_that_is_slower_for_good_gets_its_calls_back() -> None:
    pace = Pace(16)
    heard(pace, [0.1] * 40)
    assert heard(pace, [0.3] * 60) < 16
    assert heard(pace, [0.3] * 2000) == 16


async def test_a_place_is_held_for_as_long_as_its_call() -> None:
    pace, under_way, most = Pace(3), 0, 0

    async def call() -> None:
        nonlocal under_way, most
        async with pace.slot():
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(call() for _ in range(20)))
    assert most == 3
