"""Scores a sample of production's answers with the scorers of offline runs, within money and memory."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from trilith.errors import SettingsError
from trilith.types import Json
from trilith_evals.case import Case, Output
from trilith_evals.journal import Journal, digest
from trilith_evals.online.record import WEIGHT, Record
from trilith_evals.score import Score, State, scored, unscored
from trilith_evals.scorer import AnyScorer, BatchScorer, SuiteMetric

_DAY_S = 86_400

_Item: TypeAlias = tuple[Case, Output, Record]


@dataclass(frozen=True, slots=True)
class Sampler:
    """Chooses by the request's id: the same requests on every machine and in every run."""

    rate: float
    """Share of requests, from 0 to 1."""
    rates: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By (release, tenant), where another one holds; an empty text stands for any."""
    seed: str = ""
    """Another seed chooses other requests."""

    def __post_init__(self) -> None:
        for rate in (self.rate, *self.rates.values()):
            if not 0 <= rate <= 1:
                raise SettingsError(f"a sampling rate is {rate}, expected 0 to 1")

    def takes(self, request_id: str, release: str = "", tenant: str = "") -> bool:
        """Say whether a request is in the sample."""
        digest = hashlib.sha256(f"{self.seed}\0{request_id}".encode()).digest()
        return int.from_bytes(digest[:8]) < self.share(release, tenant) * 2**64

    def share(self, release: str = "", tenant: str = "") -> float:
        """Return the rate of a stratum; one over it is the weight of each of its scores."""
        strata = ((release, tenant), (release, ""), ("", tenant))
        return next((self.rates[stratum] for stratum in strata if stratum in self.rates), self.rate)


class DailyBudget:
    """Money per day (UTC), in a file that restarts and processes share. Reserved before, settled after."""

    def __init__(self, path: Path, limit_pico_usd: int, clock: Callable[[], float] = time.time) -> None:
        """Take the file and what may be spent in a day (10^-12 USD)."""
        self._path, self._limit, self._clock = path, limit_pico_usd, clock
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._open()) as connection:
            connection.execute(
                "create table if not exists spend (day integer primary key, pico_usd integer not null) strict"
            )

    def reserve(self, pico_usd: int) -> int | None:
        """Set an amount aside; return the day that it belongs to, None where it does not fit any more."""
        day = int(self._clock() // _DAY_S)
        with closing(self._open()) as connection:
            connection.execute("insert or ignore into spend values (?, 0)", (day,))
            done = connection.execute(
                "update spend set pico_usd = pico_usd + ? where day = ? and pico_usd + ? <= ?",
                (pico_usd, day, pico_usd, self._limit),
            )
        return day if done.rowcount else None

    def settle(self, day: int, reserved_pico_usd: int, spent_pico_usd: int) -> None:
        """Replace what was set aside by what was spent."""
        with closing(self._open()) as connection:
            connection.execute(
                "update spend set pico_usd = pico_usd + ? where day = ?",
                (spent_pico_usd - reserved_pico_usd, day),
            )

    def spent(self) -> int:
        """Return today's spending, what is set aside included (10^-12 USD)."""
        with closing(self._open()) as connection:
            row = connection.execute(
                "select pico_usd from spend where day = ?", (int(self._clock() // _DAY_S),)
            ).fetchone()
        return int(row[0]) if row else 0

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None)


@dataclass(slots=True)
class Counts:
    """What became of the answers."""

    seen: int = 0
    passed_over: int = 0
    """Not in the sample."""
    dropped: int = 0
    """In the sample, and the queue was full."""
    unpaid: int = 0
    """In the sample, and the day's budget was used up."""
    scored: int = 0
    abstained: int = 0
    unscored: int = 0


class OnlineScorer:
    """Takes answers as they are given, never waits, and scores a sample of them in a thread of its own."""

    def __init__(
        self,
        scorers: Mapping[str, AnyScorer],
        sampler: Sampler,
        deliver: Callable[[Record], None],
        *,
        budget: DailyBudget | None = None,
        most_pico_usd: int = 0,
        queue_size: int = 1000,
        journal: Journal | None = None,
        configuration: Json = None,
        concurrency: int = 1,
    ) -> None:
        """Start the thread.

        Args:
            scorers: By metric; of one row, or of batches. Figures over suites have no score for one row.
            sampler: Which requests.
            deliver: Called in the thread with a record that holds the scores; `Monitor.observe` does.
            budget: None: scorers cost nothing.
            most_pico_usd: The most that scoring one answer can cost; so much is reserved (10^-12 USD).
            queue_size: Answers that may wait; more are dropped, and counted.
            journal: Where scores are kept before they count; what it has is not scored again.
            configuration: What the scorers are made of; scores of others in the journal do not count.
            concurrency: Answers that are scored at a time.

        Raises:
            SettingsError: a scorer cannot judge one row.
        """
        for name, scorer in scorers.items():
            if isinstance(scorer, SuiteMetric):
                raise SettingsError(f"{name} is a figure over a whole suite, expected a scorer of one answer")
        self.counts = Counts()
        self._scorers, self._sampler, self._deliver = dict(scorers), sampler, deliver
        self._budget, self._most = budget, most_pico_usd
        self._journal, self._configuration, self._concurrency = journal, configuration, concurrency
        self._failed: BaseException | None = None
        self._queue: queue.Queue[_Item | None] = queue.Queue(queue_size)
        self._thread = threading.Thread(target=self._run, name="trilith-online-scorer", daemon=True)
        self._thread.start()

    def observe(
        self, case: Case, output: Output, release: str = "", tenant: str = "", at: float = 0.0
    ) -> bool:
        """Take one answer; say whether it will be scored. Does not wait."""
        self.counts.seen += 1
        id = output.request_id or case.id
        if not self._sampler.takes(id, release, tenant):
            self.counts.passed_over += 1
            return False
        values = {"latency_s": output.latency_s}
        if output.cost_pico_usd is not None:
            values["cost_pico_usd"] = float(output.cost_pico_usd)
        features = dict(case.input) if isinstance(case.input, dict) else {}
        record = Record(id, at or time.time(), features, values=values, tenant=tenant, release=release)
        try:
            self._queue.put_nowait((case, output, record))
        except queue.Full:
            self.counts.dropped += 1
            return False
        return True

    def take(self, case: Case, output: Output, record: Record) -> bool:
        """Take an answer whose record there is already: its scores are added to it. Waits for a place."""
        self.counts.seen += 1
        share = self._sampler.share(record.release, record.tenant)
        if not self._sampler.takes(record.id, record.release, record.tenant):
            self.counts.passed_over += 1
            return False
        record.values = {**record.values, WEIGHT: 1 / share}
        self._queue.put((case, output, record))
        return True

    def close(self) -> None:
        """Score what waits, and end.

        Raises:
            Exception: what ended the thread: the journal or the budget cannot be written.
        """
        if self._thread.is_alive():
            self._queue.put(None)
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:  # one loop: a judge's client serves one only
                while items := self._next():
                    runner.run(self._all(items))
                runner.run(_closed(self._scorers))
        except BaseException as error:
            self._failed = error
            while self._queue.get() is not None:  # nobody may wait for a place for ever
                pass

    def _next(self) -> list[_Item]:
        """Return what waits, at most as many as are scored at a time; empty at the end."""
        items: list[_Item] = []
        while len(items) < self._concurrency:
            try:
                item = self._queue.get(block=not items)
            except queue.Empty:
                break
            if item is None:
                if items:
                    self._queue.put(None)  # seen again after these
                break
            items.append(item)
        return items

    async def _all(self, items: Sequence[_Item]) -> None:
        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(self._paid(*item))

    async def _paid(self, case: Case, output: Output, record: Record) -> None:
        keys = {name: digest([self._configuration, name, record.id]) for name in self._scorers}
        scores = {name: kept for name, key in keys.items() if (kept := self._kept(key)) is not None}
        missing = {name: scorer for name, scorer in self._scorers.items() if name not in scores}
        if missing:
            day = self._budget.reserve(self._most) if self._budget else 0
            if day is None:
                self.counts.unpaid += 1
                return
            found = await _scores(missing, case, output)
            # scores before budget: a kill between them leaves what was set aside, and pays nothing again
            for name, score in found.items():
                if self._journal and not score.infrastructure:
                    said = [score.state.value, score.value, score.reason]
                    self._journal.add(keys[name], "scorer", said, score.cost_pico_usd)
            if self._budget:
                spent = sum(score.cost_pico_usd for score in found.values())
                untold = any(
                    hasattr(missing[name], "connect") and not score.cost_pico_usd
                    for name, score in found.items()
                )  # a judge that says no price, or failed on the way, may have cost what was set aside
                self._budget.settle(day, self._most, max(spent, self._most) if untold else spent)
            scores |= found
        self._deliver(self._with(record, scores))

    def _kept(self, key: str) -> Score | None:
        found = self._journal.kept(key) if self._journal else None
        if found is None:
            return None
        state, value, reason = found["value"]
        return Score(State(state), value, reason)

    def _with(self, record: Record, scores: Mapping[str, Score]) -> Record:
        good = {n: s.value for n, s in scores.items() if s.state is State.SCORED and s.value is not None}
        abstained = sum(score.state is State.ABSTAINED for score in scores.values())
        self.counts.scored += len(good)
        self.counts.abstained += abstained
        self.counts.unscored += len(scores) - len(good) - abstained
        record.values = {**record.values, **good}
        return record


async def _closed(scorers: Mapping[str, AnyScorer]) -> None:
    for scorer in scorers.values():
        if (close := getattr(scorer, "aclose", None)) is not None:
            await close()


async def _scores(scorers: Mapping[str, AnyScorer], case: Case, output: Output) -> dict[str, Score]:
    found: dict[str, Score] = {}
    for name, scorer in scorers.items():
        try:
            if isinstance(scorer, BatchScorer):
                given: Score | float = _one(await asyncio.to_thread(scorer.score_all, [(case, output)]))
            else:
                said = scorer(case, output)  # type: ignore[operator]
                given = await said if inspect.isawaitable(said) else said
            found[name] = given if isinstance(given, Score) else scored(float(given))
        except Exception as error:  # a scorer of a third party must not end all others
            found[name] = unscored(f"the scorer failed: {type(error).__name__}")
    return found


def _one(scores: Sequence[Score]) -> Score:
    if len(scores) != 1:
        raise ValueError(f"the scorer gave {len(scores)} scores for one answer")
    return scores[0]
