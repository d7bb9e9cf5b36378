"""Limits over several processes, some of which die."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from limits.harness import Bench
from support.redis_server import RedisServer

from trilith.errors import InternalServerError
from trilith_gateway.limits.memory import RateLimiter
from trilith_gateway.limits.redis import RedisLimiter
from trilith_gateway.limits.seam import Allowance, Maybe
from trilith_gateway.limits.shared import SharedRateLimiter
from trilith_gateway.terms import Rates

LIMITS = (Rates("key:k", requests_per_minute=100, max_concurrency=3),)
CHILD = """
import sys
from pathlib import Path
from trilith_gateway.limits.shared import SharedRateLimiter
from trilith_gateway.terms import Rates
limits = (Rates("key:k", requests_per_minute=12_000, max_concurrency=3),)
limiter = SharedRateLimiter(Path(sys.argv[1]))
for line in sys.stdin:
    word, count = line.split()
    if word == "request":
        found = [limiter.request(limits, 1_000.0).allowed for _ in range(int(count))]
    else:
        found = [limiter.work(limits, str(at), 0, 1_000.0) is None for at in range(int(count))]
    print(sum(found), flush=True)
"""


@contextmanager
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdin=pipe, stdout=pipe, text=True
    ) as child:
        yield child
        child.kill()


def tell(child: subprocess.Popen[str], word: str, count: int) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{word} {count}\n")
    child.stdin.flush()


def told(child: subprocess.Popen[str]) -> int:
    assert child.stdout is not None
    return int(child.stdout.readline())


def test_processes_that_ask_at_once_get_together_what_one_would_get(tmp_path: Path) -> None:
    with process(tmp_path) as one, process(tmp_path) as two, process(tmp_path) as three:
        children = (one, two, three)
        for child in children:
            tell(child, "request", 8_000)
        assert sum(told(child) for child in children) == 12_000


def test_the_places_of_a_killed_process_come_back(tmp_path: Path) -> None:
    limiter = SharedRateLimiter(tmp_path)
    with process(tmp_path) as child:
        tell(child, "work", 5)
        assert told(child) == 3
        assert limiter.work(LIMITS, "mine", 0, 1_000.0) is not None
    assert [limiter.work(LIMITS, "mine", 0, 1_000.0) is None for _ in range(4)] == [True, True, True, False]
    limiter.close()


def test_a_process_that_follows_a_dead_one_does_not_inherit_its_places(tmp_path: Path) -> None:
    first = SharedRateLimiter(tmp_path)
    assert first.work(LIMITS, "a", 0, 1_000.0) is None
    first.close()
    second = SharedRateLimiter(tmp_path)
    assert [second.work(LIMITS, "b", 0, 1_000.0) is None for _ in range(4)] == [True, True, True, False]
    second.close()


async def test_the_places_of_a_machine_that_died_come_back_and_those_of_a_living_one_stay(
    redis_server: RedisServer,
) -> None:
    dead, living = Bench.on_redis(redis_server), Bench.on_redis(redis_server)
    assert await dead.begun(*LIMITS)
    kept = await living.begun(*LIMITS)
    assert kept is not None
    living.tick(10)
    await living.keep()
    living.tick(10)
    await living.keep()
    assert [await living.begun(*LIMITS) is not None for _ in range(3)] == [True, True, False]
    await living.end(kept)
    assert await living.begun(*LIMITS) is not None
    for bench in (dead, living):
        await bench.limiter.aclose()


async def test_two_machines_share_a_limit_on_the_servers_clock(redis_server: RedisServer) -> None:
    Bench.on_redis(redis_server)
    machines = [RedisLimiter(redis_server.url, RateLimiter(), "closed") for _ in range(2)]
    slow = (Rates("key:s", requests_per_minute=5),)
    found = await asyncio.gather(*(machines[at % 2].request(slow, 0.0) for at in range(20)))
    assert sum(allowance is not None and allowance.allowed for allowance in found) == 5
    for machine in machines:
        await machine.aclose()


async def test_when_redis_is_away_each_machine_counts_for_itself_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RedisServer()
    machines = [RedisLimiter(server.url, RateLimiter(), "open") for _ in range(2)]
    few = (Rates("key:k", requests_per_minute=2, max_concurrency=1),)
    server.stop()
    with caplog.at_level(logging.ERROR):
        for machine in machines:
            allowed = [_allowed(await machine.request(few, 0.0)) for _ in range(3)]
            assert allowed == [True, True, False]
    assert "by each machine for itself" in caplog.text
    assert _allowed(await machines[0].work(few, "a", 0, 0.0))
    assert not _allowed(await machines[0].work(few, "b", 0, 0.0))
    server.start()
    machines[0].settle(few, "a", 0, 0, 0.0)  # where it was taken
    machines[0]._silent_until = 0.0
    assert _allowed(await machines[0].work(few, "c", 0, 0.0))
    assert machines[0]._open.keys() == {"c"}
    server.stop()
    assert _allowed(await machines[0].work(few, "d", 0, 0.0))
    for machine in machines:
        await machine.aclose()


async def test_when_redis_is_away_and_the_settings_say_closed_keys_with_limits_are_refused(
    redis_server: RedisServer,
) -> None:
    machine = RedisLimiter("redis://127.0.0.1:9/0", RateLimiter(), "closed")
    for _ in range(2):
        with pytest.raises(InternalServerError, match="cannot be looked up") as caught:
            await machine.request(LIMITS, 0.0)
        assert (caught.value.status_code, caught.value.retry_after_s) == (503, 1)
    await machine.aclose()


def _allowed(found: Maybe) -> bool:
    return found is None or found.allowed


def test_a_machine_that_was_started_anew_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr("trilith_gateway.limits.shared._BOOT", boot)
    limits = (Rates("key:k", requests_per_minute=1, tokens_per_minute=10),)
    allowed = []
    for run, clock in (("first", 900_000.0), ("first", 900_001.0), ("second", 5.0), ("second", 5.0)):
        boot.write_text(run, encoding="utf-8")
        limiter = SharedRateLimiter(tmp_path / "rates")  # a clock begins at 0 with its machine
        for found in (limiter.request(limits, clock), limiter.work(limits, "r", 10, clock)):
            assert isinstance(found, Allowance)
            allowed.append(found.allowed)
        limiter.close()
    assert allowed == [True, True, False, False] * 2
