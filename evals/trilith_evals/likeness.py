"""Finds texts that are nearly the same, among many, without comparing each with each.

A text is the set of its runs of five characters; two are alike by the share of runs that they have in common
(Jaccard). Candidates come from MinHash signatures in bands (Broder, "On the resemblance and containment of
documents", 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3); those are compared.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from trilith.extras import need
from trilith.types import Json

ALIKE = 0.85
"""From this share on, two texts count as the same question."""

_RUN = 5
_BANDS, _ROWS = 20, 5
"""Pairs at .85 share a band with probability 1 - (1 - .85^5)^20 = .99999; at .5, .47."""
_PRIME = (1 << 31) - 1
_SPACE = re.compile(r"\s+")


def text_of(value: Json) -> str:
    """Return a case's input as the text that is compared; of a conversation, what all said."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(m, dict) and "content" in m for m in value):
        return "\n".join(text_of(message["content"]) for message in value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def runs(text: str) -> frozenset[str]:
    """Return a text's runs of characters; case and white space do not count."""
    plain = _SPACE.sub(" ", text).strip().casefold()
    return frozenset(plain[i : i + _RUN] for i in range(max(1, len(plain) - _RUN + 1)))


def share(one: frozenset[str], other: frozenset[str]) -> float:
    """Return how alike two sets of runs are, from 0 to 1."""
    return len(one & other) / len(one | other)


def pairs(texts: Sequence[str], *, alike: float = ALIKE) -> Iterator[tuple[int, int, float]]:
    """Return pairs of positions of texts that are at least so alike, the earlier one first, and how alike."""
    sets = [runs(text) for text in texts]
    buckets: dict[tuple[int, bytes], list[int]] = {}
    seen: set[tuple[int, int]] = set()
    for at, signature in enumerate(_signatures(sets)):
        for band in range(_BANDS):
            part = signature[band * _ROWS : (band + 1) * _ROWS].tobytes()
            bucket = buckets.setdefault((band, part), [])
            for other in bucket:
                if (other, at) not in seen:
                    seen.add((other, at))
                    found = share(sets[other], sets[at])
                    if found >= alike:
                        yield other, at, found
            bucket.append(at)


def firsts(texts: Sequence[str], *, alike: float = ALIKE) -> list[int]:
    """Return the positions of texts that are like none before them that is kept."""
    like: dict[int, list[int]] = {}
    for one, other, _ in pairs(texts, alike=alike):
        like.setdefault(other, []).append(one)
    kept: list[int] = []
    taken: set[int] = set()
    for at in range(len(texts)):
        if not any(before in taken for before in like.get(at, ())):
            kept.append(at)
            taken.add(at)
    return kept


def _signatures(sets: Sequence[frozenset[str]]) -> Iterator[Any]:
    numpy = need("numpy", extra="evals")
    rng = random.Random(0)
    times = numpy.array([rng.randrange(1, _PRIME) for _ in range(_BANDS * _ROWS)], dtype=numpy.uint64)
    plus = numpy.array([rng.randrange(_PRIME) for _ in range(_BANDS * _ROWS)], dtype=numpy.uint64)
    for one in sets:
        hashes = numpy.array([zlib.crc32(run.encode()) % _PRIME for run in one], dtype=numpy.uint64)
        yield ((hashes[:, None] * times + plus) % _PRIME).min(axis=0)
