"""Ways to choose a replica. Each is a function of those that may be asked, never of those that may not."""

from __future__ import annotations

import hashlib
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeAlias

from trilith_gateway.routing.endpoint import Endpoint

Choose: TypeAlias = Callable[[Sequence[Endpoint], bytes | None], Endpoint]
"""`choose(endpoints, affinity)`, with at least one endpoint."""

_POINTS = 64
"""Places on the ring for a weight of 1."""


def weighted(endpoints: Sequence[Endpoint], affinity: bytes | None) -> Endpoint:
    """Smooth weighted round robin: as often as the weights say, and as evenly spread as they allow."""
    total = 0.0
    for endpoint in endpoints:
        endpoint.credit += endpoint.weight
        total += endpoint.weight
    chosen = max(endpoints, key=lambda endpoint: endpoint.credit)
    chosen.credit -= total
    return chosen


def least_outstanding(endpoints: Sequence[Endpoint], affinity: bytes | None) -> Endpoint:
    """The one with the fewest open requests for its weight; ties go round."""
    least = min((endpoint.outstanding + 1) / endpoint.weight for endpoint in endpoints)
    return weighted([e for e in endpoints if (e.outstanding + 1) / e.weight <= least], affinity)


def power_of_two(rng: random.Random) -> Choose:
    """The better of two taken at random, by expected waiting time (Mitzenmacher 2001; peak EWMA)."""

    def choose(endpoints: Sequence[Endpoint], affinity: bytes | None) -> Endpoint:
        if len(endpoints) == 1:
            return endpoints[0]
        first, second = rng.sample(range(len(endpoints)), 2)
        one, other = endpoints[first], endpoints[second]
        return one if one.load() <= other.load() else other

    return choose


class Prefix:
    """The replica that has seen this beginning before, unless it is busier than `bound` times the average.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018). The same beginning of a
    conversation, or the same retrieved documents, then finds its keys and values in the engine's cache.
    """

    def __init__(self, rng: random.Random, *, bound: float = 1.25) -> None:
        self._bound = bound
        self._otherwise = power_of_two(rng)
        self._rings: dict[tuple[str, ...], tuple[list[int], list[Endpoint]]] = {}
        self.why = "prefix"
        """How the last choice came about: `prefix`, `prefix-full` (its owner is too busy), `prefix-none`."""

    def __call__(self, endpoints: Sequence[Endpoint], affinity: bytes | None) -> Endpoint:
        """Choose."""
        if affinity is None or len(endpoints) == 1:
            self.why = "prefix-none" if affinity is None else "prefix"
            return self._otherwise(endpoints, affinity)
        names = tuple(endpoint.name for endpoint in endpoints)
        if names not in self._rings:
            if len(self._rings) > 64:
                self._rings.clear()
            self._rings[names] = _ring(endpoints)
        hashes, owners = self._rings[names]
        total = sum(endpoint.outstanding for endpoint in endpoints) + 1
        weights = sum(endpoint.weight for endpoint in endpoints)
        at = bisect_left(hashes, _hash(affinity))
        first = owners[at % len(owners)]
        for step in range(len(owners)):
            owner = owners[(at + step) % len(owners)]
            if owner.outstanding + 1 <= math.ceil(self._bound * total * owner.weight / weights):
                self.why = "prefix" if owner is first else "prefix-full"
                return owner
        self.why = "prefix-full"
        return self._otherwise(endpoints, affinity)


def cheapest(wait_s: float) -> Choose:
    """The cheapest replica that is expected to answer at most `wait_s` later than the quickest.

    What is expected is the time to an answer's head as last heard (`Endpoint.wait_s`). Among those that cost
    the same, the one with the least load. One that was not heard of yet counts as quick, so that it is tried.
    """

    def choose(endpoints: Sequence[Endpoint], affinity: bytes | None) -> Endpoint:
        latest = min(endpoint.wait_s() for endpoint in endpoints) + wait_s
        soon = (endpoint for endpoint in endpoints if endpoint.wait_s() <= latest)
        return min(soon, key=lambda endpoint: (endpoint.cost, endpoint.load()))

    return choose


def _ring(endpoints: Sequence[Endpoint]) -> tuple[list[int], list[Endpoint]]:
    points = sorted(
        (_hash(f"{endpoint.name}/{number}".encode()), at)
        for at, endpoint in enumerate(endpoints)
        for number in range(max(1, round(_POINTS * endpoint.weight)))
    )
    return [point for point, _ in points], [endpoints[at] for _, at in points]


def _hash(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest())
