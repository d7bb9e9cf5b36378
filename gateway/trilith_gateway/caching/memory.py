"""Answers in this process's memory, bounded in bytes as a whole and for each team."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from trilith_gateway.caching.seam import Kept, Purge

_LARGEST = 16
"""An answer may take one part in so many of a team's share."""


class MemoryCache:
    """The oldest use goes first: a team's own when its share is full, the largest team's when all is.

    So a team that floods the cache drives out its own answers, never those of teams that hold less.
    """

    def __init__(
        self,
        most_bytes: int = 64 * 1024 * 1024,
        *,
        team_share: float = 0.5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the bounds.

        Args:
            most_bytes: Of all answers together.
            team_share: What one team may have of that.
            clock: Unix time.
        """
        self._most_bytes = most_bytes
        self._team_bytes = int(most_bytes * team_share)
        self._clock = clock
        self._entries: dict[bytes, Kept] = {}
        self._teams: dict[str, OrderedDict[bytes, None]] = {}
        self._held: dict[str, int] = {}
        self._purges: dict[tuple[str | None, str | None], Purge] = {}
        self.bytes = 0
        """What is held now."""

    async def get(self, key: bytes) -> Kept | None:
        """Return what is kept under a key."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if kept.begun_at + kept.ttl_s <= self._clock():
            self._drop(key)
            return None
        self._teams[kept.team].move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep one answer; one that is too large for its team's share is not kept."""
        if kept.size > self._team_bytes // _LARGEST or any(p.voids(kept) for p in self._purges.values()):
            return
        if key in self._entries:
            self._drop(key)
        team = kept.team
        self._entries[key] = kept
        self._teams.setdefault(team, OrderedDict())[key] = None
        self._held[team] = self._held.get(team, 0) + kept.size
        self.bytes += kept.size
        while self._held.get(team, 0) > self._team_bytes:
            self._drop(next(iter(self._teams[team])))
        while self.bytes > self._most_bytes:
            largest = max(self._held, key=self._held.__getitem__)
            self._drop(next(iter(self._teams[largest])))

    async def purge(self, purge: Purge) -> None:
        """Forget what falls under it; the newest wish for the same model and team is remembered."""
        self._purges[purge.model, purge.team] = purge
        for key in [key for key, kept in self._entries.items() if purge.voids(kept)]:
            self._drop(key)

    async def aclose(self) -> None:
        """Do nothing: what is kept goes with the object."""

    def _drop(self, key: bytes) -> None:
        kept = self._entries.pop(key)
        self.bytes -= kept.size
        self._held[kept.team] -= kept.size
        keys = self._teams[kept.team]
        del keys[key]
        if not keys:
            del self._teams[kept.team], self._held[kept.team]
