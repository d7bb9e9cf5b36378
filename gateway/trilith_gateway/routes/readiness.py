"""Asks upstreams whether they can answer: all at once, briefly, and once for all who ask about one time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trilith.errors import APIError
from trilith.seams import Upstream
from trilith_gateway.release import Release

_MOST_S = 2.0
_READY_S = 1.0
_NOT_READY_S = 0.2
"""Shorter than the other: one that comes up is in use at once."""


@dataclass(slots=True)
class _Known:
    """What one upstream said last."""

    upstream: Upstream
    state: bool = False
    until: float = -math.inf
    """When it is asked again."""
    asking: asyncio.Task[bool] | None = None


class Readiness:
    """Knows which models can answer; one for the process, since anyone may ask, and as often as they like.

    Callers at the same time share one question to each upstream, and what it said holds for a moment.

    Args:
        most_s: Longest wait (seconds) for an upstream; one that says nothing until then is not ready.
        clock: Seconds, monotonic.
    """

    def __init__(self, most_s: float = _MOST_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_s = most_s
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def of(self, releases: Iterable[Release]) -> dict[str, bool]:
        """Return each model's state, by name."""
        wanted = {release.model: self._about(release) for release in releases}
        states = await asyncio.gather(*map(self._state, wanted.values()))
        return dict(zip(wanted, states, strict=True))

    def _about(self, release: Release) -> _Known:
        known = self._known.get(release.model)
        if known is None or known.upstream is not release.upstream:  # other settings, another upstream
            known = self._known[release.model] = _Known(release.upstream)
        return known

    async def _state(self, known: _Known) -> bool:
        if self._clock() < known.until:
            return known.state
        if known.asking is None:
            known.asking = asyncio.ensure_future(self._ask(known))
        return await asyncio.shield(known.asking)

    async def _ask(self, known: _Known) -> bool:
        try:
            known.state = await asyncio.wait_for(known.upstream.ready(), self._most_s)
        except (TimeoutError, APIError):
            known.state = False
        finally:
            known.asking = None
        known.until = self._clock() + (_READY_S if known.state else _NOT_READY_S)
        return known.state
