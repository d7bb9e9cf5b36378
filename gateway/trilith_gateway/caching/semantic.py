"""Answers to questions that mean the same: nearest vectors first, then a guard, never at a caller's expense.

Only the last message of a chat may differ; all else about the two requests is equal (`identity.scope`). The
index holds vectors and keys, no text and no answer: those are the exact cache's, so whatever that forgets is
forgotten here as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from trilith.errors import TrilithError
from trilith.seams import Embedder, NearestIndex
from trilith.settings.cache import SemanticCacheSettings
from trilith_gateway.caching import guard
from trilith_gateway.caching.seam import Cache, Kept

_log = logging.getLogger(__name__)

_MOST_WAITING = 64
"""Questions that wait for the one thread which embeds; more are answered without a look."""
_CANDIDATES = 3


@dataclass(slots=True)
class Question:
    """A chat's last message, and what the rest of the request is."""

    scope: str
    text: str
    settings: SemanticCacheSettings
    vector: list[float] | None = None
    """Once it is embedded."""


class SemanticCache:
    """Finds kept answers by what their questions mean. One thread does the work, the event loop none."""

    def __init__(
        self,
        cache: Cache,
        embedder: Callable[[], Embedder],
        open_index: Callable[[SemanticCacheSettings, int], NearestIndex],
    ) -> None:
        """Take the collaborators; nothing is loaded before the first question.

        Args:
            cache: Where the answers are.
            embedder: Returns what makes vectors.
            open_index: Opens the index that the settings name, for vectors of a length.
        """
        self._cache = cache
        self._embedder = embedder
        self._open_index = open_index
        self._indexes: dict[str | None, NearestIndex] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._waiting = 0
        self._failed = False

    async def find(self, question: Question) -> AsyncIterator[Kept]:
        """Yield answers to questions that mean the same, best first.

        Waits at most `wait_ms` for them; a question whose turn comes later than that has no answer here.
        """
        work = self._submit(self._nearest, question)
        if work is None:
            return
        waited = asyncio.wrap_future(work)
        done, _ = await asyncio.wait({waited}, timeout=question.settings.wait_ms / 1000)
        if not done:
            waited.cancel()  # no longer asked; work that has begun goes on, so that `add` has the vector
            return
        for key, similarity in waited.result():
            if similarity < question.settings.threshold:
                return
            kept = await self._cache.get(bytes.fromhex(key))
            if kept is None or kept.question is None:
                self._submit(self._drop, question, key)
            elif guard.agree(question.text, kept.question):
                yield kept

    def add(self, question: Question, key: bytes) -> None:
        """Let the answer that is kept under `key` be found by its question; returns at once."""
        self._submit(self._add, question, key.hex())

    async def warm(self, settings: SemanticCacheSettings) -> None:
        """Load the model and open the index before the first question has to wait for them."""
        question = Question("", "warm", settings)
        work = self._submit(self._nearest, question)
        if work is not None:
            await asyncio.wrap_future(work)

    async def aclose(self) -> None:
        """Finish what has begun, and close the indexes."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        for index in self._indexes.values():
            await asyncio.to_thread(index.close)

    def _submit(
        self, work: Callable[[Question, str], list[tuple[str, float]]], question: Question, key: str = ""
    ) -> Future[list[tuple[str, float]]] | None:
        """Hand work to the thread; None when too much waits for it."""
        if self._waiting >= _MOST_WAITING:
            return None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="trilith-semantic")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._safely, work, question, key)
        future.add_done_callback(lambda _: _in_loop(loop, self._done))
        return future

    def _done(self) -> None:
        self._waiting -= 1

    # In the thread.
    def _safely(
        self, work: Callable[[Question, str], list[tuple[str, float]]], question: Question, key: str
    ) -> list[tuple[str, float]]:
        """Do the work; what cannot be looked up is not there. Said once, until it works again."""
        try:
            found = work(question, key)
        except Exception as error:
            if not self._failed:
                self._failed = True
                why = str(error) if isinstance(error, TrilithError) else type(error).__name__
                _log.warning("questions cannot be compared by their meaning: %s", why)
            return []
        self._failed = False
        return found

    def _nearest(self, question: Question, key: str) -> list[tuple[str, float]]:
        index = self._index(question)
        return index.find(question.scope, self._vector(question), limit=_CANDIDATES)

    def _add(self, question: Question, key: str) -> list[tuple[str, float]]:
        self._index(question).add(key, question.scope, self._vector(question))
        return []

    def _drop(self, question: Question, key: str) -> list[tuple[str, float]]:
        self._index(question).drop(key)
        return []

    def _vector(self, question: Question) -> list[float]:
        if question.vector is None:
            question.vector = self._embedder().embed([question.text])[0]
        return question.vector

    def _index(self, question: Question) -> NearestIndex:
        place = question.settings.qdrant_url
        if place not in self._indexes:
            self._indexes[place] = self._open_index(question.settings, self._embedder().dimension)
        return self._indexes[place]


def _in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop is closed, and nobody counts any more
        return
