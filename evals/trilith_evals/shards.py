"""Runs a suite in several workers: shards of cases with parts of the cap, and one writer of the journal.

A worker asks and scores its shard as a run of its own would, and tells what it does as it does it. The
driver alone writes the journal, so a killed run goes on like any other. What a shard may spend is lent from
the run's money before it begins, and what it did not spend comes back with its rows: the cap is one for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from trilith.money import format_usd
from trilith_evals.case import Case
from trilith_evals.means import Means
from trilith_evals.report import Cause, Failure, Row, Spend
from trilith_evals.runner import Progress, Suite, asked, not_run, planned
from trilith_evals.summary import summarise

if TYPE_CHECKING:
    from trilith_evals.journal import Journal
    from trilith_evals.purse import Purse
    from trilith_evals.spend import Ledger, Payer

_CAPPED = "the cost cap"
"""How the reason of a run begins that has come to its cap."""
_LEAST = 4
"""So many shards for each worker where there are cases enough, so that none waits long for the last one."""
_MOST_ROWS = 1000
"""Largest shard."""

Waiting: TypeAlias = list[tuple[Case, int]]
"""Cases with their repeats."""
Event: TypeAlias = tuple[Literal["row", "begin", "end", "add", "over"], Any]
"""What a worker tells: a row, a line of the journal, and at last what was spent and why it stopped."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a worker is given at a time."""

    waiting: Waiting
    share: int | None
    """Most that it may cost (10^-12 USD); None: no cap."""
    answers: Any = field(default_factory=dict)
    """What the journal has, or a reference to it that the crew makes."""
    more: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was answered before the money of a part was out."""
    journalled: bool = False
    """Whether anybody keeps answers."""
    prices: dict[Payer, int] = field(default_factory=dict)
    """The dearest call so far, by who pays (10^-12 USD)."""


class Worker(Protocol):
    """Works at one shard at a time, here or elsewhere."""

    def work(self, part: Part) -> AsyncIterator[list[Event]]:
        """Yield what happens, in order; the last event is `over`."""
        ...

    async def stop(self) -> None:
        """Let the shard under way end with what is done."""
        ...


class Crew(Protocol):
    """Makes workers."""

    def hire(self, suite: Suite, shards: int) -> contextlib.AbstractAsyncContextManager[Sequence[Worker]]:
        """Return the workers of one suite, at most one for each shard."""
        ...

    def shared(self, answers: dict[str, dict[str, Any]]) -> Any:
        """Return what a `Part` carries for the journal's answers."""
        ...


class Shards:
    """An executor on the workers of a crew."""

    def __init__(self, crew: Crew, *, workers: int = 2) -> None:
        """Take the crew, and how many workers to cut the cases for."""
        self._crew, self._workers = crew, workers

    async def rows(
        self, suite: Suite, purse: Any, progress: Progress | None, stop: asyncio.Event
    ) -> tuple[list[Row], Failure | None]:
        """Do what `trilith_evals.runner.asked` says, in the workers."""
        waiting = planned(suite)
        size = min(_MOST_ROWS, max(1, math.ceil(len(waiting) / (self._workers * _LEAST))))
        shards = [waiting[at : at + size] for at in range(0, len(waiting), size)]
        if purse.ledger.blind:  # one case shows what a call costs before several workers buy
            shards[:1] = [shards[0][:1], *([shards[0][1:]] if shards[0][1:] else [])]
        answers = purse.journal.answers if purse.journal else {}
        async with self._crew.hire(suite, len(shards)) as workers:
            desk = _Desk(suite, purse.ledger, purse.journal, progress, self._crew.shared(answers))
            return await desk.rows(workers, shards, waiting, stop)


class _Desk:
    """The driver's side of one run."""

    def __init__(
        self,
        suite: Suite,
        ledger: Ledger,
        journal: Journal | None,
        progress: Progress | None,
        answers: Any,
    ) -> None:
        self._suite, self._ledger, self._journal = suite, ledger, journal
        self._progress, self._answers = progress, answers
        self._done: dict[tuple[str, int], Row] = {}
        self._more: dict[str, dict[str, Any]] = {}
        self._stopped: Failure | None = None
        self._enough = False
        self._total = 0

    async def rows(
        self, workers: Sequence[Worker], shards: list[Waiting], waiting: Waiting, stop: asyncio.Event
    ) -> tuple[list[Row], Failure | None]:
        self._total = len(waiting)
        watch = asyncio.create_task(self._watch(workers, stop))
        try:
            await self._hand_out(list(workers), shards)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        if self._enough:
            return [self._done[c.id, r] for c, r in waiting if (c.id, r) in self._done], self._stopped
        found = [self._done.get((c.id, r)) or not_run(self._suite, c, r) for c, r in waiting]
        return found, self._stopped

    async def _watch(self, workers: Sequence[Worker], stop: asyncio.Event) -> None:
        limit_s = self._suite.means.run_timeout_s
        try:
            await asyncio.wait_for(stop.wait(), limit_s)
            reason = "interrupted"
        except TimeoutError:
            reason = f"the run's {limit_s:g} s are over"
        self._stopped = self._stopped or Failure(Cause.INFRASTRUCTURE, reason)
        await _all_stop(workers)

    async def _hand_out(self, idle: list[Worker], shards: list[Waiting]) -> None:
        every, starved = list(idle), False
        running: dict[asyncio.Task[Failure | None], tuple[Worker, Waiting, int | None, bool]] = {}
        try:
            while True:
                while idle and shards and not self._over:
                    alone = starved or self._ledger.blind
                    if alone and running:
                        break
                    left = self._ledger.left
                    share = None if left is None else left if alone else left // len(idle)
                    last = not running and share == left
                    worker, shard = idle.pop(), shards.pop(0)
                    self._ledger.lend(share or 0)
                    running[asyncio.create_task(self._one(worker, shard, share))] = worker, shard, share, last
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    worker, shard, share, last = running.pop(task)
                    idle.append(worker)
                    failure = task.result()
                    undone = [(c, r) for c, r in shard if not self._settled(c, r)]
                    if failure and failure.reason.startswith(_CAPPED) and not last:
                        # From here on one works at a time, with all there is: the end is near.
                        shards[:0] = [undone] if undone else []
                        starved = True
                    elif failure and not self._over:
                        self._stopped = self._cap_told(failure)
                        await _all_stop(every)
                await self._look(every)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    @property
    def _over(self) -> bool:
        return self._stopped is not None or self._enough

    def _settled(self, case: Case, repeat: int) -> bool:
        """Whether a row is there that says more than that the money was out."""
        row = self._done.get((case.id, repeat))
        return row is not None and not (row.failure and row.failure.reason.startswith(_CAPPED))

    def _cap_told(self, failure: Failure) -> Failure:
        cap, left = self._suite.means.max_cost_pico_usd, self._ledger.left
        if cap is None or left is None or not failure.reason.startswith(_CAPPED):
            return failure
        spent = format_usd(cap - left)
        reason = (
            f"{_CAPPED} of {format_usd(cap)} USD is reached: {spent} USD are spent; go on with a larger cap"
        )
        return Failure(Cause.SETUP, reason)

    async def _one(self, worker: Worker, shard: Waiting, share: int | None) -> Failure | None:
        spend, failure = Spend(), None
        kept = self._journal is not None or self._suite.target.remote
        part = Part(shard, share, self._answers, self._more, kept, self._ledger.prices)
        answered: dict[str, dict[str, Any]] = {}
        try:
            async for events in worker.work(part):
                for kind, told in events:
                    if kind == "row":
                        self._note(told)
                    elif kind == "over":
                        spend, prices, failure = told
                        self._ledger.learn(prices)
                    else:
                        self._write(kind, told, answered)
        except BaseException:
            spend = Spend(target_pico_usd=share or 0)  # nobody knows how much of its part it has spent
            raise
        finally:
            self._ledger.repaid(share or 0, spend)
        if failure and failure.reason.startswith(_CAPPED):
            self._more |= answered
        return failure

    def _write(self, kind: str, told: Any, answered: dict[str, dict[str, Any]]) -> None:
        if self._journal:
            getattr(self._journal, kind)(*told)
        if kind == "add":
            key, _, value, cost = told
            answered[key] = {"value": value, "cost": cost}

    def _note(self, row: Row) -> None:
        self._done[row.case.id, row.repeat] = row
        if self._progress:
            self._progress(len(self._done), self._total)

    async def _look(self, workers: Sequence[Worker]) -> None:
        """Ask after every shard whether the cases so far are enough."""
        decided, rows = self._suite.decided, list(self._done.values())
        if decided is None or self._over or not rows or len(rows) == self._total:
            return
        self._enough = await asyncio.to_thread(lambda: decided(summarise(self._suite, rows, None)))
        if self._enough:
            await _all_stop(workers)


async def _all_stop(workers: Sequence[Worker]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))


class Bench:
    """A worker's side: what works at shards, in whichever process it is."""

    def __init__(self, suite: Suite, workers: int) -> None:
        """Take the suite, and with how many others its pace is shared."""
        each = math.ceil(suite.concurrency / workers)
        pace, tokens = suite.means.requests_per_minute, suite.means.tokens_per_minute
        means = replace(
            suite.means,
            journal=None,
            folder=None,
            executor=None,
            run_timeout_s=None,
            requests_per_minute=pace / workers if pace else None,
            tokens_per_minute=tokens / workers if tokens else None,
        )
        self._suite = replace(suite, concurrency=each, decided=None, means=means)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Let the shard under way end with what is done, and all further ones with nothing."""
        self._stop.set()

    async def work(self, part: Part) -> AsyncIterator[list[Event]]:
        """Do what `Worker.work` says."""
        told: asyncio.Queue[Event] = asyncio.Queue()
        task = asyncio.create_task(self._shard(part, self._purse(part, told), told))
        try:
            while True:
                events = [await told.get()]
                while not told.empty():
                    events.append(told.get_nowait())
                yield events
                if events[-1][0] == "over":
                    await task
                    return
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _purse(self, part: Part, told: asyncio.Queue[Event]) -> Purse:
        suite = self._suite
        means: Means = replace(suite.means, max_cost_pico_usd=part.share)
        journal = cast("Journal", _ToldJournal(part, told)) if part.journalled else None
        purse = means.purse("", suite.concurrency, suite.timeout_s, journal=journal)
        purse.ledger.learn(part.prices)
        return purse

    async def _shard(self, part: Part, purse: Purse, told: asyncio.Queue[Event]) -> None:
        suite = self._suite
        failure: Failure | None = Failure(Cause.INFRASTRUCTURE, "a worker broke down")
        try:
            with purse.open():
                rows, failure = await asked(suite, purse, None, self._stop, part.waiting)
            for row in rows:
                if row.failure is None or not row.failure.reason.startswith("not run"):
                    told.put_nowait(("row", row))
        finally:
            told.put_nowait(("over", (purse.ledger.spend(), purse.ledger.prices, failure)))


class _ToldJournal:
    """A journal whose lines are told to the driver, which writes them."""

    def __init__(self, part: Part, told: asyncio.Queue[Event]) -> None:
        self._part, self._told = part, told

    def kept(self, key: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._part.answers.get(key) or self._part.more.get(key)
        return found

    def count(self, ledger: Ledger) -> None:
        """Count nothing: what was paid before is on the driver's ledger."""

    def begin(self, key: str, payer: Payer, held: int) -> None:
        self._told.put_nowait(("begin", (key, payer, held)))

    def end(self, key: str, payer: Payer, cost: int) -> None:
        self._told.put_nowait(("end", (key, payer, cost)))

    def add(self, key: str, payer: Payer, value: Any, cost: int | None) -> None:
        self._told.put_nowait(("add", (key, payer, value, cost)))

    def close(self, *, remove: bool = False) -> None:
        """Close nothing."""
