"""Answers batches: each line through the very same pipeline, under the key that made the batch.

One process of a home leads, and runs every open batch of it, a few lines of each at a time. Which lines are
done stands in a file beside the input, which each outcome reaches before it counts. A line's charges carry
its name and the number of the try; so after a kill it is known of a line whose outcome was lost that it is
charged already. It is asked again, and the platform pays for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trilith_gateway.batch import line as lines
from trilith_gateway.batch.line import Line, Results
from trilith_gateway.batch.shelf import Shelf, StoredFile, written
from trilith_gateway.batch.table import Batch, Batches
from trilith_gateway.batch.turn import Turn
from trilith_gateway.platform import Platform
from trilith_gateway.store.home import instance

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_MOST_BATCHES = 16
"""Batches that are worked on at once; the others wait for their turn."""
_EXPIRE_S = 60.0
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
    """Whether this process is about to end."""
    counts: tuple[int, int] = field(default=(-1, -1))
    """What the table was told."""

    def over(self) -> str | None:
        """Return how the batch has to end although lines are left; None: go on."""
        if self.status == "cancelling":
            return "cancelled"
        return "expired" if time.time() >= self.batch.expires_at else None


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
            await asyncio.to_thread(self.shelf.expire)
        for batch in found:
            if (run := self._runs.get(batch.id)) is not None:
                run.status = batch.status
            elif len(self._runs) < _MOST_BATCHES:
                run = self._runs[batch.id] = _Run(batch, batch.status)
                run.task = asyncio.create_task(self._guarded(run))
        for run in list(self._runs.values()):
            await self._tell(run)
        if not self._runs:
            self._leads = False
            await asyncio.to_thread(self._leader.resign)

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
        lock = self._path(run.batch, "lock")
        lock.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with lock.open("a", encoding="utf-8") as held:
                # Whoever lost the lead may not know it yet.
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = await asyncio.to_thread(self.table.find, run.batch.id, run.batch.team)
                if found.ended_at is None:  # the row may have been read before its end was written
                    await self._run(run)
        except BlockingIOError:
            await asyncio.sleep(_TICK_S)
        except Exception:
            _log.exception("batch %s could not go on; it is tried again", run.batch.id)
            await asyncio.sleep(_TICK_S)
        finally:
            if run.results is not None:
                run.results.close()
            self._runs.pop(run.batch.id, None)
            self._wake.set()

    def _path(self, batch: Batch, what: str) -> Path:
        return self.shelf.folder / f"{batch.id}.{what}"

    def _input(self, batch: Batch) -> Path:
        """Return the batch's own name for its input, which stays when the file is deleted or expires."""
        own = self._path(batch, "input")
        if not own.exists():
            given = self.shelf.path(batch.input_file_id)
            try:
                os.link(given, own)
            except FileNotFoundError:
                return own  # whoever reads it is told
            except OSError:  # a file system without links
                shutil.copyfile(given, own)
        return own

    async def _run(self, run: _Run) -> None:
        """Take one batch from where it is to its end."""
        batch, table = run.batch, self.table
        source = await asyncio.to_thread(self._input, batch)
        most = self._platform.settings.batches.max_lines
        try:
            total, faults = await asyncio.to_thread(lines.check, source, batch.endpoint, most)
        except FileNotFoundError:
            message = "The input file is gone: it was deleted, or has expired."
            total, faults = 0, [{"code": "file_not_found", "message": message, "line": None, "param": None}]
        if faults:
            status = "cancelled" if run.over() == "cancelled" else "failed"
            await asyncio.to_thread(table.end, batch.id, status, faults=faults)
            await asyncio.to_thread(self._clear, batch)
            return
        await asyncio.to_thread(table.begin, batch.id, total)
        run.results = results = await asyncio.to_thread(Results, self._path(batch, "results"))
        tries = await asyncio.to_thread(self._tries, batch)
        await self._answer(run, source, results, tries)
        if run.stopping:
            return
        end = run.over() if len(results.done) < total else None
        if end is not None:
            await asyncio.to_thread(self._leave_out, batch, source, results, end)
        await asyncio.to_thread(table.finalize, batch.id)
        files = await asyncio.to_thread(self._files, batch, results)
        counts = (results.completed, results.failed)
        await asyncio.to_thread(table.end, batch.id, end or "completed", counts=counts, files=files)
        await asyncio.to_thread(self._clear, batch)

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
        left = (found for found in lines.lines(source) if found.number not in results.done)

        async def work(left: Iterator[Line]) -> None:
            for item in left:
                attempt, paid = tries.get(item.number, (0, False))
                outcome = await self._turn.take(
                    run.batch, item, attempt, lambda: self._given_up(run), paid=paid
                )
                if outcome is None:
                    return
                results.add(item.number, outcome)
                if self._given_up(run):
                    return

        if self._given_up(run):
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(self._platform.settings.batches.concurrency):
                group.create_task(work(left))

    def _given_up(self, run: _Run) -> bool:
        return run.stopping or run.over() is not None

    def _leave_out(self, batch: Batch, source: Path, results: Results, end: str) -> None:
        code, message = _ENDS[end]
        for item in lines.lines(source):
            if item.number not in results.done:
                name = f"batch_req_{batch.id[6:22]}{item.number:08d}"
                results.add(item.number, lines.unanswered(name, item.custom_id, code, message))

    def _files(self, batch: Batch, results: Results) -> tuple[str | None, str | None]:
        """Write output and errors; done again after a kill, it makes the same files."""
        ids = [f"file-{batch.id[6:30]}{letter}" for letter in "oe"]
        paths = [self.shelf.path(id) for id in ids]
        parts = [path.with_name(f"upload-{path.name}") for path in paths]
        results.write_files(*parts)
        found: list[str | None] = []
        for id, path, part, what in zip(ids, paths, parts, ("output", "error"), strict=True):
            if not (size := written(part)):
                part.unlink()
                found.append(None)
                continue
            part.rename(path)
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

    def _clear(self, batch: Batch) -> None:
        for what in ("results", "input", "lock"):
            self._path(batch, what).unlink(missing_ok=True)
