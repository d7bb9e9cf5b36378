"""Chunks and vectors for tests of retrieval: words as vectors, fast and enough to tell subjects apart."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Sequence

from trilith.types import Chunk


def chunk(document: str, text: str, start: int = 0) -> Chunk:
    """Return a chunk of `document` that begins at `start`."""
    id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{document}/{start}/{text}"))
    return Chunk(id, document, f"{document}.txt", document.upper(), text, start, start + len(text))


DIMENSION = 64


class WordEmbedder:
    """Each word points somewhere; a text is the sum of its words. Counts the texts that it had to read."""

    dimension = DIMENSION
    fingerprint = "words"

    def __init__(self) -> None:
        self.read = 0

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.read += len(texts)
        return [_unit(text) for text in texts]

    def count_tokens(self, texts: Sequence[str]) -> int:
        return sum(len(text.split()) for text in texts)


def _unit(text: str) -> list[float]:
    vector = [0.0] * DIMENSION
    for word in text.lower().split():
        vector[hashlib.sha256(word.strip(".,?!").encode()).digest()[0] % DIMENSION] += 1.0
    length = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / length for x in vector]
