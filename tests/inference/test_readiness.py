"""Readiness: hung upstreams hold nobody up, and many who ask are one question."""

from __future__ import annotations

import asyncio
from typing import cast

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
    def __init__(self, model: str, upstream: _Upstream) -> None:
        self.model = model
        self.upstream = upstream


def _release(model: str, upstream: _Upstream) -> Release:
    return cast(Release, _Release(model, upstream))


def test_hung_upstreams_are_not_ready_and_hide_no_model_that_is() -> None:
    async def ask() -> dict[str, bool]:
        never, now = asyncio.Event(), asyncio.Event()
        now.set()
        releases = [_release("a", _Upstream(never)), _release("b", _Upstream(never))]
        return await Readiness(0.05).of([*releases, _release("c", _Upstream(now))])

    assert asyncio.run(ask()) == {"a": False, "b": False, "c": True}


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
