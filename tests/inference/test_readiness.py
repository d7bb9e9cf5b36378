"""Readiness: hung upstreams hold nobody up, and all who ask at about one time are one question."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import cast

import httpx
from support.gateway import Running
from support.installed import until

from trilith.errors import APIConnectionError
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_gateway.release import Release
from trilith_gateway.routes.readiness import Readiness


class _Upstream:
    def __init__(self, open_: asyncio.Event) -> None:
        self.asked = 0
        self._open = open_

    async def ready(self) -> bool:
        self.asked += 1
        await self._open.wait()
        return True


class _Release:
    def __init__(self, model: str, upstream: _Upstream | _Fickle) -> None:
        self.model = model
        self.upstream = upstream


def _release(model: str, upstream: _Upstream | _Fickle) -> Release:
    return cast(Release, _Release(model, upstream))


def test_hung_upstreams_are_not_ready_and_hide_no_model_that_is() -> None:
    async def ask() -> dict[str, bool]:
        never, now = asyncio.Event(), asyncio.Event()
        now.set()
        releases = [_release("a", _Upstream(never)), _release("b", _Upstream(never))]
        return await Readiness(0.05).of([*releases, _release("c", _Upstream(now))])

    assert asyncio.run(ask()) == {"a": False, "b": False, "c": True}


class _Fickle:
    """Says what it is told to, and counts who asks."""

    def __init__(self, *, ready: bool | Exception) -> None:
        self.asked = 0
        self.state = ready

    async def ready(self) -> bool:
        self.asked += 1
        if isinstance(self.state, Exception):
            raise self.state
        return self.state


async def test_what_was_said_holds_for_a_moment_and_no_longer() -> None:
    now = 0.0
    readiness = Readiness(clock=lambda: now)
    upstream = _Fickle(ready=True)
    release = _release("a", upstream)
    for _ in range(100):
        assert await readiness.of([release]) == {"a": True}
    assert upstream.asked == 1
    upstream.state = False
    now = 0.9
    assert await readiness.of([release]) == {"a": True}
    now = 1.0
    assert await readiness.of([release]) == {"a": False}
    upstream.state = True
    now = 1.2
    assert await readiness.of([release]) == {"a": True}  # one that comes up is heard of sooner
    assert upstream.asked == 3


async def test_another_upstream_of_the_same_name_is_asked_itself() -> None:
    readiness = Readiness(clock=lambda: 0.0)
    assert await readiness.of([_release("a", _Fickle(ready=True))]) == {"a": True}
    assert await readiness.of([_release("a", _Fickle(ready=False))]) == {"a": False}


async def test_an_error_is_not_ready_and_hides_no_model_that_is() -> None:
    broken = _Fickle(ready=APIConnectionError("nothing of the protocol"))
    states = await Readiness().of([_release("a", broken), _release("b", _Fickle(ready=True))])
    assert states == {"a": False, "b": True}


def test_probes_of_every_kind_are_one_question(tmp_path: Path) -> None:
    upstream = MemoryUpstream()
    asked = 0

    async def ready() -> bool:
        nonlocal asked
        asked += 1
        return True

    upstream.ready = ready  # type: ignore[method-assign]
    place = {"kind": "predictor", "upstream": {"url": "http://127.0.0.1:9"}}
    settings = Settings.model_validate({"home": tmp_path, "models": {"far": place}})
    with Running(settings, {"far": upstream}) as gateway, httpx.Client(base_url=gateway.url) as client:
        until(lambda: client.get("/readyz").status_code == 200, what="warming up")
        before, began = asked, time.monotonic()
        for _ in range(50):
            assert client.get("/readyz").status_code == 200
            assert client.get("/v2/health/ready").status_code == 200
        assert asked - before <= 1 + (time.monotonic() - began)  # once a second


def test_many_who_ask_at_once_are_one_question() -> None:
    async def ask() -> tuple[int, list[dict[str, bool]]]:
        gate = asyncio.Event()
        upstream = _Upstream(gate)
        readiness = Readiness()
        askers = [asyncio.create_task(readiness.of([_release("a", upstream)])) for _ in range(20)]
        await asyncio.sleep(0)
        gate.set()
        states = await asyncio.gather(*askers)
        return upstream.asked, states

    asked, states = asyncio.run(ask())
    assert states == [{"a": True}] * 20
    assert asked == 1
