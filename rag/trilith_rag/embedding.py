"""An embedding model that runs in this process, as an upstream."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

from trilith.seams import Call, Embedder
from trilith_rag.answer import ProcessReply, refusal, whole


class EmbeddingUpstream:
    """Answers `POST /v1/embeddings` with an embedder of this process."""

    def __init__(self, embedder: Embedder, model: str) -> None:
        """Take the embedder and the model's public name."""
        self._embedder = embedder
        self._model = model

    async def send(self, call: Call) -> ProcessReply:
        """Embed the texts of one request."""
        body = json.loads(call.body)
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            return refusal(
                "`input` is expected to be a text or a list of texts; token ids are not read.", param="input"
            )
        if body.get("dimensions") not in (None, self._embedder.dimension):
            return refusal(
                f"This model has {self._embedder.dimension} dimensions and no others.", param="dimensions"
            )
        if (shape := body.get("encoding_format") or "float") not in ("float", "base64"):
            return refusal(
                f"`encoding_format` is {shape!r}, expected float or base64.", param="encoding_format"
            )
        vectors, tokens = await asyncio.to_thread(self._work, texts)
        data = [
            {"object": "embedding", "index": at, "embedding": vector if shape == "float" else _packed(vector)}
            for at, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return whole({"object": "list", "model": self._model, "data": data, "usage": usage})

    def _work(self, texts: list[str]) -> tuple[list[list[float]], int]:
        return self._embedder.embed(texts), self._embedder.count_tokens(texts)

    async def ready(self) -> bool:
        """Load the model if it is not loaded."""
        warm: Any = getattr(self._embedder, "warm", None)
        if warm is not None:
            await asyncio.to_thread(warm)
        return True

    async def aclose(self) -> None:
        """Do nothing: the embedder belongs to whoever made it."""


def _packed(vector: list[float]) -> str:
    """Return little-endian 32-bit floats in base64, as OpenAI's clients ask for."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
