"""Asks upstreams whether they can answer: all at once, briefly, and once for all who ask meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from trilith_gateway.release import Release

_MOST_S = 2.0


class Readiness:
    """Knows which models can answer; callers at the same time share one question to each upstream.

    Args:
        most_s: Longest wait (seconds) for an upstream; one that says nothing until then is not ready.
    """

    def __init__(self, most_s: float = _MOST_S) -> None:
        self._most_s = most_s
        self._asking: dict[str, asyncio.Task[bool]] = {}

    async def of(self, releases: Iterable[Release]) -> dict[str, bool]:
        """Return each model's state, by name."""
        asked = {release.model: self._ask(release) for release in releases}
        states = await asyncio.gather(*(asyncio.shield(task) for task in asked.values()))
        return dict(zip(asked, states, strict=True))

    def _ask(self, release: Release) -> asyncio.Task[bool]:
        name = release.model
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.ensure_future(self._state(release))
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return task

    async def _state(self, release: Release) -> bool:
        try:
            return await asyncio.wait_for(release.upstream.ready(), self._most_s)
        except TimeoutError:
            return False
