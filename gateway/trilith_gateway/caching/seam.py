"""What a cache of answers holds and does. In memory and Redis stand behind one seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trilith.types import Usage


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer, as the upstream gave it: personal data that was masked is still masked."""

    body: bytes
    """A whole answer, or a whole stream of events."""
    content_type: str
    team: str
    model: str
    begun_at: float
    """Unix time at which the request began whose answer this is; age counts from here."""
    ttl_s: float
    """How long after that it may be given again (seconds)."""
    usage: Usage | None = None
    question: str | None = None
    """The question that it answers, masked too, where others that mean the same may get it."""

    @property
    def streamed(self) -> bool:
        """Whether it is a stream."""
        return self.content_type.startswith("text/event-stream")

    @property
    def size(self) -> int:
        """How much memory it takes, about (bytes)."""
        return len(self.body) + len(self.question or "") + _OWN_BYTES


_OWN_BYTES = 512
"""Keys and objects around an answer."""


@dataclass(frozen=True, slots=True)
class Purge:
    """A wish that answers be forgotten: those to requests from before it, of one model or team, or all."""

    at: float
    """Unix time."""
    model: str | None = None
    team: str | None = None

    def voids(self, kept: Kept) -> bool:
        """Say whether an answer falls under it."""
        return (
            kept.begun_at <= self.at
            and (self.model is None or self.model == kept.model)
            and (self.team is None or self.team == kept.team)
        )


class Cache(Protocol):
    """Answers by the sha256 of everything that decides them.

    A cache that cannot be reached is an empty one: `get` and `put` never fail.
    """

    async def get(self, key: bytes) -> Kept | None:
        """Return what is kept under a key and neither too old nor purged."""
        ...

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer, if there is room for it and no purge has overtaken it; never waits."""
        ...

    async def purge(self, purge: Purge) -> None:
        """Forget, and take nothing in any more that falls under it: answers may be under way.

        Raises:
            OSError: the cache cannot be reached, so it has not forgotten.
        """
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...
