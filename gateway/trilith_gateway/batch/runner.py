"""Answers batches: each line through the very same pipeline, under the key that made the batch.

One process of a home leads, and runs every open batch of it, a few lines of each at a time. Which lines are
done stands in a file beside the input, which each outcome reaches before it counts. A line's charges carry
its name and the number of the try; so after a kill it is known of a line whose outcome was lost that it is
charged already. It is asked again, and the platform pays for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trilith.errors import IntegrityError
from trilith_gateway.batch import line as lines
from trilith_gateway.batch.drawer import Drawer, sweep
from trilith_gateway.batch.line import Results
from trilith_gateway.batch.shelf import Shelf, StoredFile, settle
from trilith_gateway.batch.table import Batch, Batches
from trilith_gateway.batch.turn import Turn
from trilith_gateway.platform import Platform
from trilith_gateway.store.home import instance

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_MOST_BATCHES = 16
"""Batches that are worked on at once; the others wait for their turn."""
_EXPIRE_S = 60.0
_REST_S, _MOST_REST_S = 1.0, 30.0
"""How long a batch rests that could not go on: twice as long each time (seconds)."""
_MOST_FAILURES = 8
"""So often in a row a batch may fail without one line more being done."""
_STUCK = "The batch could not go on; the gateway's log has the reason. What was answered is in its files."
_ENDS = {
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was made."),
    "expired": ("batch_expired", "The batch expired before this request was made."),
}


@dataclass(slots=True)
class _Run:
    """One batch that is being worked on."""

    batch: Batch
    status: str
    """As the table says now."""
    results: Results | None = None
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    """Whether it is left for later: this process is about to end, or another team has no batch under way."""
    counts: tuple[int, int] = field(default=(-1, -1))
    """What the table was told."""

    def over(self) -> str | None:
        """Return how the batch has to end although lines are left; None: go on."""
        if self.status == "cancelling":
            return "cancelled"
        return "expired" if time.time() >= self.batch.expires_at else None


@dataclass(slots=True)
class _Failures:
    """What one batch failed at, time and again."""

    count: int = 0
    """In a row, without one line more being done."""
    done: int = 0
    """How many lines were done by then."""
    until: float = 0.0
    """How long it rests (monotonic clock)."""


class BatchRunner:
    """Runs the open batches of one home while this process leads."""

    def __init__(self, platform: Platform) -> None:
        """Take the gateway's collaborators; nothing is read yet."""
        place = instance(platform.settings.home)
        self.shelf = Shelf(platform.settings.home / "files", place, platform.store.reading)
        self.table = Batches(place, platform.store.reading)
        self._platform = platform
        self._leader = platform.store.leader(f"batches {place}")
        self._turn = Turn(platform)
        self._runs: dict[str, _Run] = {}
        self._failures: dict[str, _Failures] = {}
        """By batch, of those that rest."""
        self._wake = asyncio.Event()
        self._leads = False
        self._expired_at = 0.0

    def wake(self) -> None:
        """Look now, not with the next tick: a batch was made or cancelled."""
        self._wake.set()

    async def follow(self) -> None:
        """Run batches until cancelled."""
        while True:
            try:
                await self._tick()
            except Exception:  # the database may be away; batches wait
                _log.exception("batches could not be looked after")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _TICK_S)
            self._wake.clear()

    async def aclose(self) -> None:
        """Let lines that are under way end, for as long as the gateway drains; then stop."""
        for run in self._runs.values():
            run.stopping = True
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self._platform.settings.gateway.drain_s)
        await self._stop()
        if self._leads:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._leader.resign)

    async def _tick(self) -> None:
        found = await asyncio.to_thread(self.table.open)
        if found or self._leads or time.time() - self._expired_at >= _EXPIRE_S:
            self._leads = await asyncio.to_thread(self._leader.acquire)
        if not self._leads:
            await self._stop()
            return
        if time.time() - self._expired_at >= _EXPIRE_S:
            self._expired_at = time.time()
            await asyncio.to_thread(self._tidy)
        self._share(found)
        for run in list(self._runs.values()):
            await self._tell(run)
        if not self._runs:
            self._leads = False
            await asyncio.to_thread(self._leader.resign)

    def _share(self, found: Sequence[Batch]) -> None:
        """Begin what waits, oldest first, and first for teams that have the fewest batches under way."""
        waiting: list[Batch] = []
        for id in self._failures.keys() - {batch.id for batch in found}:
            del self._failures[id]  # ended by somebody else
        for batch in found:
            if (run := self._runs.get(batch.id)) is not None:
                run.status = batch.status
            elif batch.id not in self._failures or time.monotonic() >= self._failures[batch.id].until:
                waiting.append(batch)
        going = [run for run in self._runs.values() if not run.stopping]
        shares = Counter(run.batch.team for run in going)
        while waiting and len(self._runs) < _MOST_BATCHES:
            batch = min(waiting, key=lambda batch: shares[batch.team])
            waiting.remove(batch)
            shares[batch.team] += 1
            run = self._runs[batch.id] = _Run(batch, batch.status)
            run.task = asyncio.create_task(self._guarded(run))
        left_out = {batch.team for batch in waiting if not shares[batch.team]}
        for _ in range(len(left_out) - (len(self._runs) - len(going))):
            team, most = shares.most_common(1)[0]
            if most < 2:
                break
            newest = max((run for run in going if run.batch.team == team), key=lambda run: run.batch.at)
            newest.stopping = True  # its lines under way end, and it goes on when there is room
            going.remove(newest)
            shares[team] -= 1

    def _tidy(self) -> None:
        self.shelf.expire()
        sweep(self.shelf.folder, self.table.ended)

    async def _tell(self, run: _Run) -> None:
        if run.results is None:
            return
        counts = (run.results.completed, run.results.failed)
        if counts != run.counts:
            run.counts = counts
            await asyncio.to_thread(self.table.count, run.batch.id, *counts)

    async def _stop(self) -> None:
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _guarded(self, run: _Run) -> None:
        """Work on one batch, unless somebody else does; what stops it is met with another try."""
        id = run.batch.id
        try:
            with Drawer(self.shelf.folder, id).locked():  # who lost the lead may not know it yet
                run.batch = await asyncio.to_thread(self.table.find, id, run.batch.team)
                if run.batch.ended_at is None:  # the row may have been read before its end was written
                    await self._run(run)
            self._failures.pop(id, None)
        except BlockingIOError:
            self._failures[id] = _Failures(until=time.monotonic() + _TICK_S)
        except Exception:
            _log.exception("batch %s could not go on; it is tried again", id)
            await self._failed(run)
        finally:
            if run.results is not None:
                run.results.close()
            self._runs.pop(id, None)
            self._wake.set()

    async def _failed(self, run: _Run) -> None:
        """Let a batch rest that could not go on; after too many failures that changed nothing, end it."""
        found = self._failures.setdefault(run.batch.id, _Failures())
        done = len(run.results.done) if run.results is not None else 0
        found.count = 1 if done > found.done else found.count + 1
        found.done = max(done, found.done)
        found.until = time.monotonic() + min(_REST_S * 2 ** (found.count - 1), _MOST_REST_S)
        if found.count < _MOST_FAILURES:
            return
        try:
            with Drawer(self.shelf.folder, run.batch.id).locked():
                await self._end(run, "failed", faults=[_fault("internal_error", _STUCK)])
        except Exception:
            _log.exception("batch %s could not even be ended; it is tried again", run.batch.id)

    async def _run(self, run: _Run) -> None:
        """Take one batch from where it is to its end."""
        batch, table = run.batch, self.table
        drawer = Drawer(self.shelf.folder, batch.id)
        total, faults = await self._checked(batch, drawer)
        if faults:
            await self._end(run, "cancelled" if run.over() == "cancelled" else "failed", faults=faults)
            return
        await asyncio.to_thread(table.begin, batch.id, total)
        results = await self._open(run)
        tries = await asyncio.to_thread(self._tries, batch)
        await self._answer(run, drawer.input, results, tries)
        if run.stopping:
            return
        end = run.over() if len(results.done) < total else None
        if end is None and len(results.done) < total:
            raise IntegrityError("the input holds fewer requests than when it was checked")
        if end is not None:
            await asyncio.to_thread(self._leave_out, batch, drawer.input, results, end)
        await self._end(run, end or "completed")

    async def _checked(self, batch: Batch, drawer: Drawer) -> tuple[int, list[dict[str, Any]]]:
        """Return how many requests a batch has, and what is wrong with it; it is looked at once only."""
        try:
            await asyncio.to_thread(drawer.keep, self.shelf.path(batch.input_file_id))
        except FileNotFoundError:
            return 0, [_fault("file_not_found", "The input file is gone: it was deleted, or has expired.")]
        if batch.started_at is not None:
            return batch.total, []
        settings = self._platform.settings
        bounds = (settings.batches.max_lines, settings.gateway.max_body_bytes)
        return await asyncio.to_thread(lines.check, drawer.input, batch.endpoint, *bounds)

    async def _open(self, run: _Run) -> Results:
        if run.results is None:
            run.results = await asyncio.to_thread(Results, Drawer(self.shelf.folder, run.batch.id).results)
        return run.results

    async def _end(self, run: _Run, status: str, *, faults: Sequence[dict[str, Any]] = ()) -> None:
        """Hand out what was answered, and note how the batch ended; only then forget about it."""
        batch, table = run.batch, self.table
        results = await self._open(run)
        await asyncio.to_thread(table.finalize, batch.id)
        files = await asyncio.to_thread(self._files, batch, results)
        counts = (results.completed, results.failed)
        await asyncio.to_thread(table.end, batch.id, status, faults=faults, counts=counts, files=files)
        await asyncio.to_thread(Drawer(self.shelf.folder, batch.id).clear)
        await asyncio.to_thread(self.shelf.release, batch.input_file_id)

    def _tries(self, batch: Batch) -> dict[int, tuple[int, bool]]:
        """Return, for lines that an earlier run asked for: the next try's number, and whether it is paid."""
        store = self._platform.store
        store.sweep()  # what a dead worker charged stands in its journal
        store.flush()
        found: dict[int, tuple[int, bool]] = {}
        with store.reading() as connection:
            rows = connection.execute(
                "select id, rule from ledger where id >= ? and id < ? and category = 'usage'",
                (f"{batch.id}-", f"{batch.id}."),
            ).fetchall()
        for row in rows:
            number, attempt = (int(part) for part in row["id"].rsplit("-", 2)[1:])
            if row["rule"] not in ("failed", "aborted", "broken"):
                found[number] = (attempt, True)
            elif not found.get(number, (0, False))[1]:
                found[number] = (max(attempt + 1, found.get(number, (0, False))[0]), False)
        return found

    async def _answer(
        self, run: _Run, source: Path, results: Results, tries: dict[int, tuple[int, bool]]
    ) -> None:
        """Answer the lines that are left, a few at a time."""
        left = lines.Reader(source, results.done)
        failures: list[Exception] = []

        async def work() -> None:
            while not failures and (item := await left.take()) is not None:
                attempt, paid = tries.get(item.number, (0, False))
                outcome = await self._turn.take(
                    run.batch, item, attempt, lambda: self._given_up(run), paid=paid
                )
                if outcome is None:
                    return
                results.add(item.number, outcome)
                if self._given_up(run):
                    return

        async def safely() -> None:
            try:
                await work()
            except Exception as error:  # the others' lines are under way, and paid for
                failures.append(error)

        if self._given_up(run):
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(self._platform.settings.batches.concurrency):
                group.create_task(safely())
        if failures:
            raise failures[0]

    def _given_up(self, run: _Run) -> bool:
        return run.stopping or run.over() is not None

    def _leave_out(self, batch: Batch, source: Path, results: Results, end: str) -> None:
        code, message = _ENDS[end]
        for item in lines.lines(source, results.done):
            name = f"batch_req_{batch.id[6:22]}{item.number:08d}"
            results.add(item.number, lines.unanswered(name, item.custom_id, code, message))

    def _files(self, batch: Batch, results: Results) -> tuple[str | None, str | None]:
        """Write output and errors; done again after a kill, it makes the same files."""
        ids = [f"file-{batch.id[6:30]}{letter}" for letter in "oe"]
        parts = [self.shelf.part_path(id) for id in ids]
        results.write_files(*parts)
        found: list[str | None] = []
        for id, part, what in zip(ids, parts, ("output", "error"), strict=True):
            if not (size := part.stat().st_size):
                part.unlink()
                found.append(None)
                continue
            settle(part, self.shelf.path(id))
            now = time.time()
            until = now + self._platform.settings.batches.keep_days * 86_400
            name = f"{batch.id}_{what}.jsonl"
            self.shelf.add(
                StoredFile(
                    id, batch.team, batch.key_id, "batch_output", name, size, now, until, self.shelf.place
                )
            )
            found.append(id)
        return found[0], found[1]


def _fault(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "line": None, "param": None}
