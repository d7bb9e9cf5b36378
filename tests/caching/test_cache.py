"""One contract for both caches: what is kept comes back, until it is too old, purged, or crowded out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from trilith.types import Usage
from trilith_gateway.caching.memory import MemoryCache
from trilith_gateway.caching.redis import RedisCache
from trilith_gateway.caching.seam import Cache, Kept, Purge

KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Cache]:
    made: Cache
    if request.param == "memory":
        made = MemoryCache(64_000, team_share=0.5, clock=clock)
    else:
        server: Any = request.getfixturevalue("redis")
        made = RedisCache(server.url, 64_000, team_share=0.5, clock=clock)
    yield made
    await made.aclose()


def kept(body: bytes = b"answer", *, team: str = "a", model: str = "m", at: float = 1000.0) -> Kept:
    usage = Usage(input_tokens=3, output_tokens=2)
    return Kept(body, "application/json", team, model, at, 60.0, usage, "what was asked\nin two lines")


async def put(cache: Cache, key: bytes, entry: Kept) -> None:
    cache.put(key, entry)
    if isinstance(cache, RedisCache):
        await cache.drain()


def name(number: int) -> bytes:
    return number.to_bytes(32)


async def test_what_is_kept_comes_back_whole(cache: Cache) -> None:
    assert await cache.get(KEY) is None
    await put(cache, KEY, kept(b"bytes \xff\n as they are"))
    assert await cache.get(KEY) == kept(b"bytes \xff\n as they are")


async def test_an_answer_is_given_for_its_time_and_not_longer(cache: Cache, clock: Clock) -> None:
    await put(cache, KEY, kept())
    clock.now += 59
    assert await cache.get(KEY) is not None
    clock.now += 2
    assert await cache.get(KEY) is None


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(1000.0), {3}),
        (Purge(1000.0, model="m"), {1, 2, 3}),
        (Purge(1000.0, team="a"), {1, 3}),
        (Purge(1000.0, "n", "a"), {0, 1, 3}),
    ],
)
async def test_a_purge_forgets_what_it_names_and_came_before(
    cache: Cache, purge: Purge, left: set[int]
) -> None:
    entries = [kept(), kept(team="b", model="n"), kept(model="n"), kept(at=1001.0, team="b", model="o")]
    for number, entry in enumerate(entries):
        await put(cache, name(number), entry)
    await cache.purge(purge)
    assert {number for number in range(4) if await cache.get(name(number))} == left


async def test_an_answer_under_way_when_a_purge_comes_is_not_kept(cache: Cache) -> None:
    await cache.purge(Purge(1000.5))
    await put(cache, KEY, kept(at=1000.0))
    assert await cache.get(KEY) is None
    await put(cache, KEY, kept(at=1001.0))
    assert await cache.get(KEY) is not None


async def test_a_team_that_floods_the_cache_drives_out_only_its_own(cache: Cache) -> None:
    await put(cache, KEY, kept(team="quiet"))
    for number in range(200):
        await put(cache, name(number), kept(b"x" * 1000, team="loud", at=1000.0 + number / 1000))
    assert await cache.get(KEY) is not None
    held = [number for number in range(200) if await cache.get(name(number))]
    assert held == list(range(min(held), 200))  # the newest
    assert 10 < len(held) <= 32


async def test_an_answer_that_is_put_twice_counts_once(cache: Cache) -> None:
    for _ in range(100):
        await put(cache, KEY, kept(b"x" * 1000))
    await put(cache, name(1), kept(b"x" * 1000))
    assert await cache.get(KEY) is not None


async def test_an_answer_too_large_for_its_team_is_not_kept(cache: Cache) -> None:
    await put(cache, KEY, kept(b"x" * 40_000))
    assert await cache.get(KEY) is None


async def test_when_all_is_full_the_largest_team_gives_way() -> None:
    cache = MemoryCache(20_000, team_share=0.9)
    for number in range(200):
        cache.put(name(number), kept(b"x" * 500, team="big", at=2e9))
    for number in range(1000, 1004):
        cache.put(name(number), kept(b"x" * 500, team=f"small {number}", at=2e9))
    assert cache.bytes <= 20_000
    for number in range(1000, 1004):
        assert await cache.get(name(number)) is not None


async def test_a_redis_that_is_away_is_an_empty_cache_and_said_once(
    redis: Any, caplog: pytest.LogCaptureFixture, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilith_gateway.caching.redis._PAUSE_S", 0.0)
    cache = RedisCache(redis.url, clock=clock)
    await put(cache, KEY, kept())
    redis.stop()
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert await cache.get(KEY) is None
            await put(cache, KEY, kept())
        with pytest.raises(OSError, match="nothing was purged"):
            await cache.purge(Purge(1000.0))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Redis does not answer (ConnectionError)"
    ]
    redis.start()
    await put(cache, KEY, kept())
    assert await cache.get(KEY) is not None
    await cache.aclose()
