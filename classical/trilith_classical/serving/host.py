"""Which versions of a model are in memory: the one that the alias names, and those asked for besides.

When the alias moves, the new version is opened and warmed up before it takes over; calls that are under way
stay with the version that they began with, and that goes when the last of them is answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from trilith.errors import InternalServerError, NotFoundError, TrilithError
from trilith_classical.predictor import OnnxPredictor
from trilith_classical.serving.batch import Batcher

_log = logging.getLogger(__name__)

_WARM_RUNS = 5
_MOST_PATIENCE = 32
"""A version that cannot be opened is tried again after 1, 2, 4, ... polls, up to so many."""


class Catalogue(Protocol):
    """Where versions come from."""

    def named(self) -> str | None:
        """Return the version that the alias names now; None where it names none. Blocking, short."""
        ...

    def open(self, version: str) -> OnnxPredictor:
        """Load a version and warm it up. Blocking.

        Raises:
            TrilithError: there is no such version, or it is not what was registered.
        """
        ...


@dataclass(frozen=True, slots=True)
class Serving:
    """How versions are kept and run."""

    versions: Sequence[str] = ()
    """Which to keep in memory besides the one that the alias names."""
    poll_s: float = 2.0
    """How often to look where the alias points (seconds); 0: never."""
    max_batch_rows: int = 256
    """Most rows of a joined run; 1: calls are never joined."""
    max_wait_s: float = 0.0
    """How long a call may be held back for others to join it (seconds)."""


class Loaded:
    """A version in memory."""

    __slots__ = ("batcher", "open", "predictor", "retired")

    def __init__(self, predictor: OnnxPredictor, batcher: Batcher) -> None:
        self.predictor = predictor
        self.batcher = batcher
        self.open = 0
        """How many calls are under way."""
        self.retired = False

    @property
    def version(self) -> str:
        """Which version it is."""
        return self.predictor.model.version


class ModelHost:
    """The versions of one model.

    Args:
        catalogue: Where they come from; None: there is only `first`, and it stays.
        first: What the alias names at the start, loaded.
        serving: How they are kept and run.
        besides: Further versions, loaded.
    """

    def __init__(
        self,
        first: OnnxPredictor,
        catalogue: Catalogue | None = None,
        serving: Serving | None = None,
        besides: Sequence[OnnxPredictor] = (),
    ) -> None:
        self.serving = serving or Serving()
        self._catalogue = catalogue
        self._pool: ThreadPoolExecutor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._patience = 0
        self._skips = 0
        self.loaded = True
        """Whether it may be called; an unloaded model keeps its place and answers that it is not ready."""
        self.present = self._load(first)
        self._kept: dict[str, Loaded] = {one.model.version: self._load(one) for one in besides}
        self._wanted = {*self.serving.versions}
        """Which stay when the alias leaves them."""
        self.draining: list[Loaded] = []
        """Versions that still answer calls which began before they were replaced."""

    def find(self, version: str | None) -> Loaded:
        """Return a version that is in memory; None: the one that the alias names.

        Raises:
            NotFoundError: it is not in memory.
            InternalServerError: 503, the model was unloaded.
        """
        if not self.loaded:
            raise InternalServerError(
                "the model is unloaded; load it again with POST /v2/repository/models/NAME/load",
                status_code=503,
                code="model_not_ready",
            )
        if version is None or version == self.present.version:
            return self.present
        kept = self._kept.get(version)
        if kept is None:
            raise NotFoundError(
                f"version {version[:60]!r} is not served; served are: {', '.join(self.versions)}",
                status_code=404,
            )
        return kept

    @property
    def versions(self) -> list[str]:
        """Those in memory, the one that the alias names first."""
        return list(dict.fromkeys([self.present.version, *self._kept]))

    def follow(self) -> None:
        """Begin to watch the alias, on the running loop; calling it again does nothing."""
        if self._timer is None and self._catalogue is not None and self.serving.poll_s and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(self.serving.poll_s, self._tick)

    def leave(self, loaded: Loaded) -> None:
        """One call of a version is answered."""
        loaded.open -= 1
        if loaded.retired and not loaded.open and loaded in self.draining:
            self.draining.remove(loaded)

    async def refresh(self) -> None:
        """Look where the alias points now, and follow it.

        Raises:
            TrilithError: what it names cannot be opened; the present version stays.
        """
        if self._catalogue is None:
            return
        loop = asyncio.get_running_loop()
        opened = await loop.run_in_executor(self.pool(), self._look)
        if opened is not None:
            self.take_over(opened)

    async def add(self, version: str) -> None:
        """Keep one more version in memory.

        Raises:
            TrilithError: there is none, or it is not what was registered.
        """
        if self._catalogue is None:
            return
        if version not in self.versions:
            loop = asyncio.get_running_loop()
            opened = await loop.run_in_executor(self.pool(), self._open, self._catalogue, version)
            if version not in self.versions:  # meanwhile the alias may have come to it
                self._kept[version] = opened
        self._wanted.add(version)

    def take_over(self, loaded: Loaded) -> None:
        """Let a loaded version answer from now on; the one before drains, unless it is kept."""
        before = self.present
        self.present = self._kept.pop(loaded.version, loaded)
        if before.version in self._wanted and before.version != self.present.version:
            self._kept[before.version] = before
            return
        before.retired = True
        if before.open:
            self.draining.append(before)

    def pool(self) -> ThreadPoolExecutor:
        """Return the threads for what takes too long on the event loop."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max(2, min(4, os.cpu_count() or 1)), "predictor")
        return self._pool

    def close(self) -> None:
        """Stop watching, and let the threads end."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def _load(self, predictor: OnnxPredictor) -> Loaded:
        batcher = Batcher(
            predictor.run,
            self.pool,
            max_rows=self.serving.max_batch_rows,
            max_wait_s=self.serving.max_wait_s,
            joins=predictor.joins and self.serving.max_batch_rows > 1,
        )
        batcher.measure(predictor.blank(), _WARM_RUNS)
        return Loaded(predictor, batcher)

    def _open(self, catalogue: Catalogue, version: str) -> Loaded:
        return self._load(catalogue.open(version))

    def _look(self) -> Loaded | None:
        """Return what the alias names now, loaded, if it is not what answers."""
        if self._catalogue is None:
            return None
        version = self._catalogue.named()
        if version is None or version == self.present.version:
            return None
        kept = self._kept.get(version)
        return kept if kept is not None else self._open(self._catalogue, version)

    def _tick(self) -> None:
        if self._skips > 0:
            self._skips -= 1
            self._again()
            return
        work = asyncio.get_running_loop().run_in_executor(self.pool(), self._look)
        work.add_done_callback(self._looked)

    def _looked(self, work: asyncio.Future[Loaded | None]) -> None:
        if work.cancelled():
            return
        error = work.exception()
        if error is None:
            self._patience = 0
            if (opened := work.result()) is not None and not self._closed:
                self.take_over(opened)
        else:
            self._patience = min(_MOST_PATIENCE, max(1, self._patience * 2))
            self._skips = self._patience - 1
            reason = str(error) if isinstance(error, TrilithError) else type(error).__name__
            _log.warning("version %s goes on answering: %s", self.present.version, reason)
        self._again()

    def _again(self) -> None:
        self._timer = None
        self.follow()
