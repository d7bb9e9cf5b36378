"""Probes of replicas: whatever one of them does, the others are asked, and asked again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from trilith_gateway.routing import pressure
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.health import Check, watch
from trilith_gateway.upstream.http import HttpUpstream

METRICS = b'vllm:num_requests_waiting{engine="0"} 4.0\n'


class Probed(HttpUpstream):
    """A replica that answers a probe as it is told, or fails as nobody has foreseen."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/v1")
        self.asked = 0
        self.told: tuple[int, bytes] | Exception = (200, METRICS)

    async def fetch(self, path: str, *, timeout_s: float, method: str = "GET") -> tuple[int, bytes]:
        self.asked += 1
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


@pytest.fixture
def replicas() -> list[Probed]:
    return [Probed(), Probed()]


@asynccontextmanager
async def following(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    yield
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what changes is not ours to set an event for
            await asyncio.sleep(0.005)


@contextmanager
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as changed:
        changed.setattr(pressure, "_EVERY_S", 0.005)
        yield


async def test_a_health_probe_that_raises_anything_says_unwell_and_ends_no_other(
    replicas: list[Probed],
) -> None:
    sick, well = replicas
    endpoints = [Endpoint(name, upstream) for name, upstream in zip("ab", replicas, strict=True)]
    sick.told = RuntimeError("a fault that nobody has foreseen")
    async with following(watch(endpoints, Check(interval_s=0.005, unhealthy_after=2, healthy_after=2))):
        await until(lambda: not endpoints[0].healthy)
        seen = well.asked
        await until(lambda: well.asked > seen + 3)
        assert endpoints[1].healthy
        sick.told = (200, b"")
        await until(lambda: endpoints[0].healthy)


async def test_a_pressure_probe_that_raises_anything_says_room_and_ends_no_other(
    replicas: list[Probed], monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, busy = replicas
    endpoints = [Endpoint(name, upstream) for name, upstream in zip("ab", replicas, strict=True)]
    with often(monkeypatch):
        async with following(pressure.follow(endpoints)):
            await until(lambda: endpoints[0].pressure == endpoints[1].pressure == 5)
            silent.told = RuntimeError("a fault that nobody has foreseen")
            await until(lambda: endpoints[0].pressure == 1)
            seen = busy.asked
            await until(lambda: busy.asked > seen + 3)
            assert endpoints[1].pressure == 5
            silent.told = (200, METRICS)
            await until(lambda: endpoints[0].pressure == 5)


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-Inf", b"-4", b"what"])
async def test_a_metric_that_is_no_load_moves_no_replica_out_of_the_order(
    replicas: list[Probed], monkeypatch: pytest.MonkeyPatch, value: bytes
) -> None:
    odd, busy = replicas
    odd.told = (200, b"vllm:num_requests_waiting " + value + b"\nvllm:kv_cache_usage_perc " + value + b"\n")
    endpoints = [Endpoint(name, upstream) for name, upstream in zip("ab", replicas, strict=True)]
    with often(monkeypatch):
        async with following(pressure.follow(endpoints)):
            await until(lambda: odd.asked > 1 and endpoints[1].pressure == 5)
    assert math.isfinite(endpoints[0].pressure)
    assert endpoints[0].pressure >= 1
