"""What every index does: the twin, the Rust engine in this process, and the client's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rag_words import chunk

from trilith.seams import VectorIndex
from trilith.testing import MemoryIndex
from trilith_rag.index.edge import EdgeIndex
from trilith_rag.index.qdrant import QdrantIndex

# qdrant-client says so of the in-memory collections that stand in for a server here.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

CAT, SEA, TAX = chunk("a", "A cat purrs."), chunk("b", "The sea is salty."), chunk("c", "Tax is due in May.")
VECTORS = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
KINDS = ["memory", "edge", "client", *(["server"] if "QDRANT_URL" in os.environ else [])]


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    made: VectorIndex
    if request.param == "memory":
        made = MemoryIndex(dimension=3)
    elif request.param == "edge":
        made = EdgeIndex(tmp_path / "shard", dimension=3)
    else:
        url = ":memory:" if request.param == "client" else os.environ["QDRANT_URL"]
        made = QdrantIndex(url, f"test-{tmp_path.name}", dimension=3)
    made.upsert([CAT, SEA, TAX], VECTORS)
    yield made
    made.close()


def test_the_nearest_passage_comes_first_and_whole(index: VectorIndex) -> None:
    assert index.search([0.0, 0.9, 0.1], "how salty is the sea", limit=1)[0].chunk == SEA


def test_words_find_a_passage_that_vectors_miss(index: VectorIndex) -> None:
    found = [hit.chunk for hit in index.search([0.58, 0.58, 0.57], "purrs", limit=3)]
    assert found[0] == CAT


def test_storing_a_chunk_again_replaces_it(index: VectorIndex) -> None:
    index.upsert([CAT], [[0.0, 0.0, 1.0]])
    assert len(index.ids()) == 3


def test_a_deleted_chunk_is_gone_and_unknown_ids_are_ignored(index: VectorIndex) -> None:
    index.delete([CAT.id, "00000000-0000-0000-0000-000000000000"])
    assert index.ids() == {SEA.id: "b", TAX.id: "c"}
    assert CAT not in [hit.chunk for hit in index.search([1.0, 0.0, 0.0], "cat purrs", limit=3)]


def test_the_limit_is_kept(index: VectorIndex) -> None:
    assert len(index.search([1.0, 1.0, 1.0], "sea tax cat", limit=2)) == 2
