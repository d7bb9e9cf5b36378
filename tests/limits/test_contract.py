from __future__ import annotations

import pytest
from limits.harness import Bench

from trilith_gateway.terms import Rates

KEY = Rates("key:k", requests_per_minute=3, tokens_per_minute=600, max_concurrency=2)
TEAM = Rates("team:t", requests_per_minute=4, tokens_per_minute=1000, max_concurrency=3)


async def test_a_burst_of_the_whole_minute_is_allowed_and_not_one_more(bench: Bench) -> None:
    assert [(await bench.request(KEY)).allowed for _ in range(4)] == [True, True, True, False]


async def test_what_remains_counts_down(bench: Bench) -> None:
    assert [(await bench.request(KEY)).remaining for _ in range(3)] == [2, 1, 0]


async def test_the_wait_that_is_told_is_exactly_enough(bench: Bench) -> None:
    for _ in range(3):
        await bench.request(KEY)
    wait = (await bench.request(KEY)).retry_after_s
    assert wait == pytest.approx(20)
    bench.tick(wait - 0.01)
    assert not (await bench.request(KEY)).allowed
    bench.tick(0.01)
    assert (await bench.request(KEY)).allowed


async def test_accounts_do_not_share_a_limit(bench: Bench) -> None:
    one, other = Rates("key:a", requests_per_minute=1), Rates("key:b", requests_per_minute=1)
    await bench.request(one)
    assert (await bench.request(other)).allowed


async def test_the_tightest_level_is_told_and_a_refusal_counts_at_no_level(bench: Bench) -> None:
    narrow = Rates("team:t", requests_per_minute=1)
    assert (await bench.request(KEY, narrow)).account == "team:t"
    refused = await bench.request(KEY, narrow)
    assert (refused.allowed, refused.account) == (False, "team:t")
    assert (await bench.request(KEY)).remaining == 1


async def test_tokens_are_taken_at_their_bound_and_corrected_at_the_end(bench: Bench) -> None:
    request = await bench.begun(KEY, TEAM, tokens=500)
    assert request is not None
    refused, _ = await bench.work(KEY, TEAM, tokens=200)
    assert refused is not None
    assert (refused.what, refused.account, refused.remaining) == ("tokens", "key:k", 100)
    await bench.end(request, used=100)
    told, _ = await bench.work(KEY, TEAM, tokens=200)
    assert told is not None
    assert (told.allowed, told.remaining) == (True, 300)


async def test_more_used_than_bound_is_counted_too(bench: Bench) -> None:
    request = await bench.begun(KEY, tokens=100)
    assert request is not None
    await bench.end(request, used=550)
    assert await bench.begun(KEY, tokens=51) is None
    assert await bench.begun(KEY, tokens=50)


async def test_a_correction_never_gives_more_than_the_full_burst(bench: Bench) -> None:
    request = await bench.begun(KEY, tokens=600)
    assert request is not None
    bench.tick(59)
    await bench.end(request, used=0)
    assert await bench.begun(KEY, tokens=601) is None
    assert await bench.begun(KEY, tokens=600)


async def test_what_exceeds_the_limit_by_itself_is_never_allowed_and_says_so(bench: Bench) -> None:
    refused, _ = await bench.work(KEY, tokens=601)
    assert refused is not None
    assert refused.retry_after_s == float("inf")


async def test_places_are_given_back_once_each(bench: Bench) -> None:
    first, second = await bench.begun(KEY), await bench.begun(KEY)
    assert first is not None
    assert second is not None
    refused, _ = await bench.work(KEY)
    assert refused is not None
    assert refused.what == "concurrency"
    await bench.end(first)
    assert await bench.begun(KEY) is not None
    assert await bench.begun(KEY) is None


async def test_a_full_team_takes_nothing_from_the_key(bench: Bench) -> None:
    others = [await bench.begun(TEAM) for _ in range(3)]
    assert await bench.begun(KEY, TEAM, tokens=600) is None
    assert others[0] is not None
    await bench.end(others[0])
    assert await bench.begun(KEY, TEAM, tokens=600) is not None
