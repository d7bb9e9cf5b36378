"""An in-memory index of vectors by scope: the twin of those on Qdrant."""

from __future__ import annotations

from collections.abc import Sequence


class MemoryNearest:
    """Looks at every vector. For tests, not for size."""

    def __init__(self) -> None:
        self._stored: dict[str, tuple[str, list[float]]] = {}

    def add(self, key: str, scope: str, vector: Sequence[float]) -> None:
        """Add or replace the vector of `key`."""
        self._stored[key] = (scope, list(vector))

    def find(self, scope: str, vector: Sequence[float], *, limit: int) -> list[tuple[str, float]]:
        """Return keys and cosine similarities, nearest first."""
        found = [
            (key, float(sum(a * b for a, b in zip(vector, stored, strict=True))))
            for key, (place, stored) in self._stored.items()
            if place == scope
        ]
        return sorted(found, key=lambda one: -one[1])[:limit]

    def drop(self, key: str) -> None:
        """Remove a vector."""
        self._stored.pop(key, None)

    def close(self) -> None:
        """Do nothing."""
