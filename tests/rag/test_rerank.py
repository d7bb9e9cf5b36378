"""The rerank model of this process: order, scores, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from trilith.seams import Call
from trilith.settings.schema import Settings
from trilith_rag import MiniLmEmbedder, RerankUpstream


class Letters:
    """Embeds a text as whether it holds `a` and `b`."""

    dimension = 2
    fingerprint = "letters"

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[float("a" in text), float("b" in text)] for text in texts]

    def count_tokens(self, texts: Sequence[str]) -> int:
        return len(texts)


async def rerank(upstream: RerankUpstream, **body: Any) -> tuple[int, dict[str, Any]]:
    reply = await upstream.send(Call("/v1/rerank", json.dumps({"model": "order", **body}).encode()))
    return reply.status, json.loads(b"".join([part async for part in reply.chunks()]))


async def test_documents_come_back_best_first_with_their_places_and_ties_in_order() -> None:
    upstream = RerankUpstream(Letters(), "order")
    documents = ["b", {"text": "a"}, "c", "a too"]
    status, answer = await rerank(upstream, query="a", documents=documents)
    assert status == 200
    assert [result["index"] for result in answer["results"]] == [1, 3, 0, 2]
    assert answer["results"][0] == {"index": 1, "relevance_score": 1.0, "document": {"text": "a"}}
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5}


async def test_as_many_as_were_asked_for_and_without_texts_on_request() -> None:
    upstream = RerankUpstream(Letters(), "order")
    _, answer = await rerank(upstream, query="b", documents=["a", "b"], top_n=1, return_documents=False)
    assert answer["results"] == [{"index": 1, "relevance_score": 1.0}]


@pytest.mark.parametrize(
    "body",
    [{"documents": []}, {"documents": [3]}, {"documents": "a"}, {"documents": ["a"], "top_n": 0}],
)
async def test_what_cannot_be_ordered_is_refused_by_name(body: dict[str, Any]) -> None:
    status, answer = await rerank(RerankUpstream(Letters(), "order"), query="a", **body)
    assert status == 400
    assert answer["error"]["param"] in body


async def test_the_packaged_model_puts_the_answer_first() -> None:
    upstream = RerankUpstream(MiniLmEmbedder(), "order")
    documents = ["Bread is baked in an oven.", "Paris is the capital of France.", "The sea is salty."]
    _, answer = await rerank(upstream, query="What is the capital of France?", documents=documents)
    assert answer["results"][0]["index"] == 1


def test_a_local_rerank_model_needs_no_server(tmp_path: Path) -> None:
    described = {"order": {"kind": "rerank", "upstream": {"local": "all-minilm-l6-v2"}}}
    assert Settings.model_validate({"home": tmp_path, "models": described}).models["order"].kind == "rerank"
    with pytest.raises(ValueError, match="only embed and rerank"):
        Settings.model_validate({"models": {"o": {**described["order"], "kind": "image"}}})
