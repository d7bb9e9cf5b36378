"""The language model and the embeddings that ragas metrics ask, through any OpenAI-compatible server."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trilith.errors import SettingsError
from trilith.extras import need
from trilith_evals.purse import under_purse
from trilith_evals.scorers.ragas_wire import transport
from trilith_evals.scorers.semantic import Semantic, TextEmbedder


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the judge is, and how patient a call is."""

    model: str
    base_url: str | None
    api_key_env: str
    timeout_s: float
    max_retries: int
    max_tokens: int
    api_key: str | None = None
    """In place of the variable's."""

    def client(self) -> Any:
        """Return an `openai.AsyncOpenAI`; the caller closes it.

        Raises:
            SettingsError: nobody says where the server is.
        """
        url = self.base_url or os.environ.get("TRILITH_BASE_URL")
        if not url:
            raise SettingsError(
                "params.base_url: missing, expected the judge's server; or set TRILITH_BASE_URL"
            )
        whole = url.rstrip("/")
        openai, httpx = need("openai", extra="evals"), need("httpx", extra="evals")
        # Under a run the run tries again: it knows what an attempt may cost.
        retries = 0 if under_purse() else self.max_retries
        return openai.AsyncOpenAI(
            base_url=whole if whole.endswith("/v1") else f"{whole}/v1",
            api_key=self.api_key or os.environ.get(self.api_key_env) or "none",
            timeout=self.timeout_s,
            max_retries=retries,
            http_client=httpx.AsyncClient(
                transport=transport(), timeout=self.timeout_s, follow_redirects=True
            ),
        )

    def llm(self, client: Any) -> Any:
        """Return ragas's model over that client; no langchain, no patched event loop."""
        factory = need("ragas.llms", extra="evals").llm_factory
        return factory(self.model, provider="openai", client=client, max_tokens=self.max_tokens)


class Embeddings:
    """Remembers the vectors of texts that were embedded in one batch; ragas itself asks one by one."""

    def __init__(self, embedder: TextEmbedder | None) -> None:
        """Take MiniLM unless an embedder is given."""
        self._embedder = embedder or Semantic()._embedder
        self._vectors: dict[str, list[float]] = {}

    def prepare(self, texts: Sequence[str]) -> None:
        """Embed those that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))

    def vector(self, text: str) -> list[float]:
        """Return one text's vector."""
        self.prepare([text])
        return self._vectors[text]

    def for_ragas(self) -> Any:
        """Return them as ragas wants embeddings."""
        base: Any = need("ragas.embeddings.base", extra="evals").BaseRagasEmbedding
        vector = self.vector

        class Remembered(base):  # type: ignore[misc]
            def embed_text(self, text: str, **_: Any) -> list[float]:
                return vector(text)

            async def aembed_text(self, text: str, **_: Any) -> list[float]:
                return vector(text)

        return Remembered()


def of_infrastructure(error: BaseException) -> bool:
    """Say whether the network or the server was at fault, however deep ragas and instructor wrapped it."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kinds = {kind.__name__ for kind in type(one).__mro__ if kind.__module__.startswith("openai")}
        if kinds & {"APIConnectionError", "InternalServerError", "RateLimitError"}:
            return True
        pending += [one.__cause__, one.__context__]
    return False
