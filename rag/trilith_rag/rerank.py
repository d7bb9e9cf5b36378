"""A rerank model that runs in this process, as an upstream.

It is a bi-encoder: query and documents are embedded each by itself, and ordered by the cosine of their
vectors. A cross-encoder, which reads both together, orders better and costs a run of the model per document;
put one behind `upstream.url` where that matters.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from typing import Any

from trilith.seams import Call, Embedder
from trilith_rag.answer import ProcessReply, refusal, whole

_MOST_DOCUMENTS = 1000


class RerankUpstream:
    """Answers `POST /v1/rerank` with an embedder of this process."""

    def __init__(self, embedder: Embedder, model: str) -> None:
        """Take the embedder and the model's public name."""
        self._embedder = embedder
        self._model = model

    async def send(self, call: Call) -> ProcessReply:
        """Order the documents of one request, best first."""
        body = json.loads(call.body)
        documents = body.get("documents")
        texts = [_text(document) for document in documents] if isinstance(documents, list) else []
        known = [text for text in texts if text is not None]
        if not known or len(known) < len(texts) or len(texts) > _MOST_DOCUMENTS:
            return refusal(
                f"`documents` is expected to be a list of 1 to {_MOST_DOCUMENTS} texts, "
                "or of objects with a `text`.",
                param="documents",
            )
        most = body.get("top_n")
        if most is not None and (type(most) is not int or most < 1):
            return refusal("`top_n` is expected to be a whole number of at least 1.", param="top_n")
        query = str(body.get("query"))
        scores, tokens = await asyncio.to_thread(self._work, query, known)
        order = sorted(range(len(known)), key=lambda at: (-scores[at], at))[:most]
        shown = body.get("return_documents", True) is not False
        results: list[dict[str, Any]] = [
            {"index": at, "relevance_score": scores[at]}
            | ({"document": {"text": known[at]}} if shown else {})
            for at in order
        ]
        answer = {
            "id": f"rerank-{secrets.token_hex(12)}",
            "model": self._model,
            "results": results,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return whole(answer)

    def _work(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        asked, *found = self._embedder.embed([query, *documents])
        scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in found]
        return scores, self._embedder.count_tokens([query, *documents])

    async def ready(self) -> bool:
        """Load the model if it is not loaded."""
        warm: Any = getattr(self._embedder, "warm", None)
        if warm is not None:
            await asyncio.to_thread(warm)
        return True

    async def aclose(self) -> None:
        """Do nothing: the embedder belongs to whoever made it."""


def _text(document: object) -> str | None:
    if isinstance(document, str):
        return document
    text = document.get("text") if isinstance(document, dict) else None
    return text if isinstance(text, str) else None
