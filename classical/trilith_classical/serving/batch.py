"""Joins concurrent calls to one model into batches, without ever making a lone call wait.

The first call runs at once. What arrives while it runs is run together next. A run that is quicker than a hop
to a thread stays on the event loop, and then "while it runs" means: in the same turn of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeAlias

import numpy as np

from trilith_classical.serving.codec import Array

Tensors: TypeAlias = Mapping[str, Array]
Run: TypeAlias = Callable[[Tensors], list[Array]]

INLINE_NS = 200_000
"""Runs up to here stay on the event loop (nanoseconds): a hop to a thread and back costs a quarter of it in
CPU time, and no other caller notices so short a pause."""
_WEIGHT = 0.2
"""How much the newest run counts in what is expected of the next."""


class Scored:
    """What one call gets: its part of the outputs, and of the CPU time."""

    __slots__ = ("arrays", "cpu_ns")

    def __init__(self, arrays: list[Array], cpu_ns: int) -> None:
        self.arrays = arrays
        self.cpu_ns = cpu_ns


class _Waiting:
    __slots__ = ("future", "rows", "tensors")

    def __init__(self, tensors: Tensors, rows: int, future: asyncio.Future[Scored]) -> None:
        self.tensors = tensors
        self.rows = rows
        self.future = future


class Expectation:
    """How long runs take: one moving average (nanoseconds of CPU) for each doubling of the rows."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def note(self, rows: int, ns: int) -> None:
        """Take a run's measured time."""
        size = rows.bit_length()
        before = self._known.get(size)
        self._known[size] = ns if before is None else before + _WEIGHT * (ns - before)

    def of(self, rows: int) -> float:
        """Return what a run will take; where nothing like it was seen, no better than in proportion."""
        size = rows.bit_length()
        known = self._known.get(size)
        if known is not None:
            return known
        nearest = max((seen for seen in self._known if seen < size), default=None)
        return float("inf") if nearest is None else self._known[nearest] * 2 ** (size - nearest)


class Batcher:
    """Runs calls of one model; belongs to one event loop.

    Args:
        run: The model: one `(rows, 1)` array per column in, arrays with `rows` in front out. Blocking.
        executor: Where runs go that take longer than `INLINE_NS`; made when it is first needed.
        max_rows: Most rows of a joined run; a call that is larger runs alone.
        max_wait_s: How long a call that finds the model idle is held back for others to join (seconds).
        joins: Whether a joined run gives each call exactly what it would get alone. False: never joined.
        clock_ns: The running thread's CPU time.
    """

    def __init__(
        self,
        run: Run,
        executor: Callable[[], Executor],
        *,
        max_rows: int = 256,
        max_wait_s: float = 0.0,
        joins: bool = True,
        clock_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self.expected = Expectation()
        self.runs = 0
        """How many runs there were; less than calls where calls were joined."""
        self._run = run
        self._executor = executor
        self._max_rows = max_rows
        self._max_wait_s = max_wait_s
        self._joins = joins
        self._clock_ns = clock_ns
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        """Whether a run goes on in a thread, or went on in this turn of the loop."""

    def measure(self, tensors: Tensors, times: int) -> None:
        """Run one row so many times, to know beforehand what a run takes. Blocking."""
        for _ in range(times):
            self._score(tensors, 1)
        self.runs = 0

    def submit(self, tensors: Tensors, rows: int) -> Scored | asyncio.Future[Scored]:
        """Score one call: returns the result if it is there at once, else what waits for it.

        Raises:
            Exception: whatever the model raises, to its own caller only.
        """
        if not self._busy and not self._max_wait_s and self.expected.of(rows) <= INLINE_NS:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._free)
            return self._score(tensors, rows)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(tensors, rows, loop.create_future())
        self._queue.append(waiting)
        if not self._busy:
            self._busy = True
            if self._max_wait_s:
                loop.call_later(self._max_wait_s, self._next)
            else:
                self._next()
        return waiting.future

    def _free(self) -> None:
        """The turn of the loop is over, or a thread is done: go on with what came meanwhile."""
        self._busy = False
        if self._queue:
            self._busy = True
            self._next()

    def _next(self) -> None:
        """Run what waits, as much as fits."""
        batch = self._take()
        if not batch:
            self._busy = False
            return
        loop = asyncio.get_running_loop()
        if self.expected.of(sum(one.rows for one in batch)) <= INLINE_NS:
            self._deliver(batch, self._outcomes(batch))
            loop.call_soon(self._free)
            return
        work = loop.run_in_executor(self._executor(), self._outcomes, batch)
        work.add_done_callback(lambda done: self._done(batch, done))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            one = self._queue[0]
            if batch and (not self._joins or rows + one.rows > self._max_rows):
                break
            self._queue.popleft()
            if not one.future.cancelled():  # its caller has left
                batch.append(one)
                rows += one.rows
        return batch

    def _done(self, batch: list[_Waiting], done: asyncio.Future[list[Scored | Exception]]) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            reason = error if isinstance(error, Exception) else RuntimeError("the model's thread was stopped")
            self._deliver(batch, [reason] * len(batch))
        else:
            self._deliver(batch, done.result())
        self._free()

    def _deliver(self, batch: Sequence[_Waiting], outcomes: Sequence[Scored | Exception]) -> None:
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.future.done():
                continue
            if isinstance(outcome, Scored):
                one.future.set_result(outcome)
            else:
                one.future.set_exception(outcome)

    def _outcomes(self, batch: Sequence[_Waiting]) -> list[Scored | Exception]:
        """Run a batch: together, and where that fails each alone, so that none pays for another's fault."""
        wasted = [0] * len(batch)
        if len(batch) > 1:
            sizes = [one.rows for one in batch]
            started = self._clock_ns()
            try:
                return list(self._together(batch, sizes))
            except Exception:  # whose fault it was shows when they run alone; what it cost all is shared
                wasted = shares(self._clock_ns() - started, sizes)
        outcomes: list[Scored | Exception] = []
        for one, lost_ns in zip(batch, wasted, strict=True):
            try:
                scored = self._score(one.tensors, one.rows)
                scored.cpu_ns += lost_ns
                outcomes.append(scored)
            except Exception as error:
                outcomes.append(error)
        return outcomes

    def _score(self, tensors: Tensors, rows: int) -> Scored:
        started = self._clock_ns()
        arrays = self._run(tensors)
        took = self._clock_ns() - started
        self.runs += 1
        self.expected.note(rows, took)
        return Scored(arrays, took)

    def _together(self, batch: Sequence[_Waiting], sizes: Sequence[int]) -> list[Scored]:
        joined = {name: np.concatenate([one.tensors[name] for one in batch]) for name in batch[0].tensors}
        total = self._score(joined, sum(sizes))
        scored = []
        at = 0
        for size, cpu_ns in zip(sizes, shares(total.cpu_ns, sizes), strict=True):
            scored.append(Scored([array[at : at + size] for array in total.arrays], cpu_ns))
            at += size
        return scored


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number in proportion to `weights`; the parts add up to it (largest remainder)."""
    weight = sum(weights)
    parts = [total * one // weight for one in weights]
    by_remainder = sorted(range(len(weights)), key=lambda at: -(total * weights[at] % weight))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts
