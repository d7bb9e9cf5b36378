"""Every limiter under one contract; Redis is a real server, started once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from limits.harness import Bench
from support.redis_server import RedisServer

from trilith_gateway.limits.memory import RateLimiter
from trilith_gateway.limits.shared import SharedRateLimiter


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis of this session's own."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "shared", "redis"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """One limiter, empty, with a clock of the test's own."""
    if request.param == "memory":
        made = Bench(RateLimiter())
    elif request.param == "shared":
        made = Bench(SharedRateLimiter(tmp_path))
    else:
        made = Bench.on_redis(request.getfixturevalue("redis_server"))
    yield made
    await made.limiter.aclose()
