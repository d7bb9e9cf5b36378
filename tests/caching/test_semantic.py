"""Answers to questions that mean the same: on twins for the rules, on the real model for the claim."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway
from support.installed import until

from trilith.seams import NearestIndex
from trilith.settings.cache import SemanticCacheSettings
from trilith.testing import MemoryNearest, MemoryUpstream
from trilith_gateway.caching.memory import MemoryCache
from trilith_gateway.caching.seam import Kept, Purge
from trilith_gateway.caching.semantic import Question, SemanticCache
from trilith_rag.index.nearest import EdgeNearest, ServerNearest

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@pytest.fixture(params=["memory", "edge", "client"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NearestIndex]:
    made: NearestIndex
    if request.param == "memory":
        made = MemoryNearest()
    elif request.param == "edge":
        made = EdgeNearest(tmp_path / "nearest", dimension=3)
    else:
        made = ServerNearest(":memory:", "answers", dimension=3)
    yield made
    made.close()


class TestIndex:
    def test_the_nearest_come_first_and_only_from_the_same_scope(self, index: NearestIndex) -> None:
        index.add("aa", "s", [1, 0, 0])
        index.add("bb", "s", [0.8, 0.6, 0])
        index.add("cc", "t", [1, 0, 0])
        found = index.find("s", [1, 0, 0], limit=3)
        assert [key for key, _ in found] == ["aa", "bb"]
        assert [similarity for _, similarity in found] == pytest.approx([1, 0.8])
        assert index.find("nowhere", [1, 0, 0], limit=3) == []

    def test_a_key_is_replaced_and_dropped(self, index: NearestIndex) -> None:
        index.add("aa", "s", [1, 0, 0])
        index.add("aa", "s", [0, 1, 0])
        ((key, similarity),) = index.find("s", [0, 1, 0], limit=3)
        assert (key, round(similarity, 3)) == ("aa", 1)
        index.drop("aa")
        index.drop("unknown")
        assert index.find("s", [0, 1, 0], limit=3) == []


def test_the_oldest_vectors_go_when_there_are_too_many(tmp_path: Path) -> None:
    index = EdgeNearest(tmp_path / "nearest", dimension=2, most=3)
    for number in range(5):
        index.add(f"{number:02x}", "s", [1, number])
    assert {key for key, _ in index.find("s", [1, 1], limit=9)} == {"02", "03", "04"}
    index.close()
    assert not (tmp_path / "nearest").exists()


class Letters:
    """Counts letters; can be made to wait or to fail."""

    dimension = 26
    fingerprint = "letters"

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.failure: Exception | None = None

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.free.wait()
        if self.failure is not None:
            raise self.failure
        counts = [[text.lower().count(chr(97 + at)) for at in range(26)] for text in texts]
        return [[n / (sum(n * n for n in row) ** 0.5 or 1) for n in row] for row in counts]

    def count_tokens(self, texts: Sequence[str]) -> int:
        return 0


SETTINGS = SemanticCacheSettings(wait_ms=5000)


class TestLookUp:
    @pytest.fixture
    def embedder(self) -> Letters:
        return Letters()

    @pytest.fixture
    def cache(self) -> MemoryCache:
        return MemoryCache(clock=lambda: 1000.0)

    @pytest.fixture
    async def semantic(self, embedder: Letters, cache: MemoryCache) -> AsyncIterator[SemanticCache]:
        made = SemanticCache(cache, lambda: embedder, lambda settings, dimension: MemoryNearest())
        yield made
        embedder.free.set()
        await made.aclose()

    def keep(self, semantic: SemanticCache, cache: MemoryCache, text: str, *, scope: str = "s") -> None:
        key = text.encode().ljust(32)
        cache.put(key, Kept(text.encode(), "application/json", "a", "m", 1000.0, 60.0, question=text))
        semantic.add(Question(scope, text, SETTINGS), key)

    async def find(self, semantic: SemanticCache, text: str, **options: Any) -> list[bytes]:
        asked = Question(options.pop("scope", "s"), text, options.pop("settings", SETTINGS))
        return [kept.body async for kept in semantic.find(asked)]

    async def test_a_question_that_means_the_same_is_found(
        self, semantic: SemanticCache, cache: MemoryCache
    ) -> None:
        self.keep(semantic, cache, "Who led the team in 1990?")
        assert await self.find(semantic, "In 1990, who led the team?") == [b"Who led the team in 1990?"]
        assert await self.find(semantic, "In 1991, who led the team?") == []  # the guard
        assert await self.find(semantic, "In 1990, who led the team?", scope="t") == []

    async def test_below_the_threshold_nothing_is_found(
        self, semantic: SemanticCache, cache: MemoryCache
    ) -> None:
        self.keep(semantic, cache, "Who led the team?")
        strict = SemanticCacheSettings(threshold=0.999, wait_ms=5000)
        assert await self.find(semantic, "Tell me who led the team", settings=strict) == []

    async def test_what_the_exact_cache_forgot_is_forgotten(
        self, semantic: SemanticCache, cache: MemoryCache
    ) -> None:
        self.keep(semantic, cache, "Who led the team?")
        await cache.purge(Purge(1000.0))
        assert await self.find(semantic, "who led the team") == []
        self.keep(semantic, cache, "Who led the team?")
        assert await self.find(semantic, "who led the team") == []  # under way when the purge came

    async def test_a_question_does_not_wait_longer_than_its_bound(
        self, semantic: SemanticCache, embedder: Letters
    ) -> None:
        embedder.free.clear()
        brief = SemanticCacheSettings(wait_ms=1)
        assert await self.find(semantic, "Who?", settings=brief) == []
        assert not embedder.free.is_set()  # the embedder is at it still

    async def test_when_too_many_wait_the_next_ones_are_not_looked_up(
        self, semantic: SemanticCache, embedder: Letters
    ) -> None:
        embedder.free.clear()
        brief = SemanticCacheSettings(wait_ms=1)
        for number in range(64):
            semantic.add(Question("s", str(number), brief), b"k" * 32)
        endless = SemanticCacheSettings(wait_ms=5000)
        assert await self.find(semantic, "Who?", settings=endless) == []
        assert not embedder.free.is_set()

    async def test_an_embedder_that_fails_finds_nothing_and_is_told_of_once(
        self, semantic: SemanticCache, embedder: Letters, caplog: pytest.LogCaptureFixture
    ) -> None:
        embedder.failure = RuntimeError("canary")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await self.find(semantic, "Who?") == []
        assert [record.getMessage() for record in caplog.records] == [
            "questions cannot be compared by their meaning: RuntimeError"
        ]

    async def test_the_event_loop_goes_on_while_a_question_is_embedded(
        self, semantic: SemanticCache, embedder: Letters
    ) -> None:
        embedder.free.clear()
        looking = asyncio.create_task(self.find(semantic, "Who?"))
        for _ in range(3):
            await asyncio.sleep(0.01)
        assert not looking.done()
        embedder.free.set()
        assert await looking == []


SEMANTIC: dict[str, Any] = {"cache": {"semantic": {"wait_ms": 5000}}}


class TestRealModel:
    """all-MiniLM and the Rust engine, behind the gateway."""

    def ask(self, gateway: Gateway, *texts: str, **fields: Any) -> httpx.Response:
        roles = ["system", "user"] if len(texts) == 2 else ["user"]
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        body = {"model": "echo", "messages": messages, "temperature": 0, **fields}
        with gateway.client() as client:
            response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 200
        return response

    def test_the_same_question_said_otherwise_is_answered_without_the_model(
        self, start_gateway: StartGateway
    ) -> None:
        echo = MemoryUpstream("It is Paris.")
        gateway = start_gateway({"echo": echo}, echo=SEMANTIC)
        until(gateway.platform.warmed.is_set, what="the model being loaded")

        def word(*texts: str, **fields: Any) -> str:
            return self.ask(gateway, *texts, **fields).headers["x-trilith-cache"]

        assert word("What is the capital of France?") == "miss"
        assert word("what's the capital of France") == "semantic"
        assert word("Please tell me: what is the capital of France?", stream=True) == "semantic"
        assert word("What is the capital of France?") == "hit"
        assert len(echo.calls) == 1
        # What is near, and is not the same:
        assert word("What is the capital of Spain?") == "miss"
        assert word("what is the capital of france in 1940") == "miss"
        assert word("Answer in French.", "What is the capital of France?") == "miss"
        assert word("what's the capital of France", max_tokens=3) == "miss"
        gateway.token = gateway.mint(team="others")
        assert word("what's the capital of France") == "miss"
        cached = [row for row in gateway.ledger() if row["rule"] == "cached"]
        assert len(cached) == 3
        assert all(row["saved_pico_usd"] > 0 for row in cached)

    def test_each_of_two_people_gets_their_own_name_back(self, start_gateway: StartGateway) -> None:
        echo = MemoryUpstream()
        gateway = start_gateway({"echo": echo}, echo={"policy": "private", **SEMANTIC})
        until(gateway.platform.warmed.is_set, what="the model being loaded")
        self.ask(gateway, "Write to a@example.org about the invoice.")
        said = self.ask(gateway, "Please write to b@example.org about the invoice")
        assert said.headers["x-trilith-cache"] == "semantic"
        assert "b@example.org" in said.text
        assert "a@example.org" not in said.text
        stored = b"".join(p.read_bytes() for p in gateway.home.rglob("*") if p.is_file() and p.stat().st_size)
        assert b"example.org" not in stored
