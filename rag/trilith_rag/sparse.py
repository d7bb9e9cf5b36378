"""Qdrant's own BM25 encoder, whose token ids are those of the server's `qdrant/bm25`; needs no model hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trilith.extras import need

FINGERPRINT = "qdrant-bm25/english"

DEFAULT_LENGTH = 100.0
"""Mean length until one was measured (tokens)."""

# With b = 0 and a huge k a token's weight is the number of times it occurs: the encoder as a token counter.
_COUNTING_K = 1e6


class Bm25:
    """Weighs the words of texts; the index multiplies by their rarity (IDF)."""

    def __init__(self, mean_length: float | None = None) -> None:
        """Take the mean length of the corpus's texts (tokens without stop words).

        Qdrant's default of 256 costs .004 to .021 nDCG@10 on corpora of shorter texts, so it is measured.
        """
        self._engine: Any = need("qdrant_edge", extra="rag")
        self._encoder = self._engine.Bm25(self._engine.Bm25Config(avg_len=mean_length or DEFAULT_LENGTH))

    def document(self, text: str) -> tuple[list[int], list[float]]:
        """Return a stored text's token ids and their weights."""
        vector = self._encoder.embed_document(text)
        return list(vector.indices), list(vector.values)

    def query(self, text: str) -> tuple[list[int], list[float]]:
        """Return a question's token ids and their weights; both empty when it has stop words only."""
        vector = self._encoder.embed_query(text)
        return list(vector.indices), list(vector.values)


def count_tokens(texts: Iterable[str]) -> list[int]:
    """Return each text's length as BM25 counts it (tokens without stop words)."""
    engine = need("qdrant_edge", extra="rag")
    counter = engine.Bm25(engine.Bm25Config(k=_COUNTING_K, b=0.0))
    return [round(sum(counter.embed_document(text).values)) for text in texts]
