"""Workers of a Ray cluster, or of the Ray that is started here for the run (https://docs.ray.io)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from trilith.extras import need
from trilith_evals.runner import Suite
from trilith_evals.shards import Bench, Event, Part, Shards


def executor(workers: int | None = None) -> Shards:
    """Return an executor on Ray.

    Args:
        workers: How many; None: one for every CPU of the cluster.

    Raises:
        MissingExtra: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of every start
    ray = need("ray", extra="ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="warning")
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    return Shards(RayCrew(ray, count), workers=count)


class RayCrew:
    """Starts an actor for each worker."""

    def __init__(self, ray: Any, workers: int) -> None:
        """Take the library, connected to a cluster."""
        self._ray, self._workers = ray, workers

    def shared(self, answers: dict[str, dict[str, Any]]) -> Any:
        """Put the answers where all workers of a machine read one copy."""
        return self._ray.put(dict(answers)) if answers else {}

    @contextlib.asynccontextmanager
    async def hire(self, suite: Suite, shards: int) -> AsyncIterator[Sequence[RayWorker]]:
        """Start the actors, and end them with the block."""
        count = min(self._workers, shards)
        sent = replace(suite, decided=None, means=replace(suite.means, executor=None))
        actor = self._ray.remote(_Actor)
        given = self._ray.put(sent)
        actors = [actor.options(max_concurrency=4).remote(given, count) for _ in range(count)]
        try:
            yield [RayWorker(self._ray, one) for one in actors]
        finally:
            for one in actors:
                self._ray.kill(one)


class RayWorker:
    """One actor, seen from the driver."""

    def __init__(self, ray: Any, actor: Any) -> None:
        """Take the actor."""
        self._ray, self._actor = ray, actor

    async def work(self, part: Part) -> AsyncIterator[list[Event]]:
        """Do what `Worker.work` says."""
        streaming = self._actor.work.options(num_returns="streaming")
        # The answers by themselves, so that a reference to them is followed.
        async for told in streaming.remote(replace(part, answers={}), part.answers):
            yield await told

    async def stop(self) -> None:
        """Do what `Worker.stop` says."""
        await self._actor.stop.remote()


class _Actor:
    """One actor, in its own process."""

    def __init__(self, suite: Suite, workers: int) -> None:
        self._given = suite, workers
        self._bench: Bench | None = None
        self._stopped = False

    async def work(self, part: Part, answers: Any) -> AsyncIterator[list[Event]]:
        if self._bench is None:  # here, as it belongs to the loop
            self._bench = Bench(*self._given)
        if self._stopped:
            self._bench.stop()
        async for events in self._bench.work(replace(part, answers=answers)):
            yield events

    async def stop(self) -> None:
        self._stopped = True
        if self._bench:
            self._bench.stop()
        await asyncio.sleep(0)
