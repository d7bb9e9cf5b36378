"""Runs one suite: asks the target with bounded concurrency, scores, and adds up.

Whatever goes wrong with a case becomes a row with a reason; only a wrong suite raises.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from trilith.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BudgetExceededError,
    EngineError,
    InternalServerError,
    MissingExtra,
    NotFoundError,
    RateLimitError,
    SettingsError,
)
from trilith.telemetry import names, span
from trilith.types import Json
from trilith_evals import look
from trilith_evals.answer import output_json, output_of
from trilith_evals.batch import ending, with_batches
from trilith_evals.case import Case, Output
from trilith_evals.dataset import Dataset
from trilith_evals.gate import Threshold
from trilith_evals.means import Means, identity, run_digest
from trilith_evals.purse import Late, Paid, Purse, in_time, paid, place
from trilith_evals.report import Cause, Failure, Row, SuiteReport
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import AnyScorer, BatchScorer, Scorer, SuiteMetric
from trilith_evals.spend import Refused
from trilith_evals.summary import summarise
from trilith_evals.target import Target

Decided = Callable[[SuiteReport], bool]
"""Told what has been found so far, and says whether the run may stop there."""

Progress = Callable[[int, int], None]
"""Told after every case how many are done, and of how many."""

_SETUP = (AuthenticationError, NotFoundError, BudgetExceededError, SettingsError, MissingExtra)
_INFRASTRUCTURE = (APIConnectionError, InternalServerError, RateLimitError, EngineError, ConnectionError)

_PATIENCE = 5
"""So many cases in a row without any answer, all for infrastructure's sake, end the run."""


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything that one run needs."""

    name: str
    target: Target
    data: Dataset
    scorers: Mapping[str, AnyScorer]
    """By the metric's name."""
    thresholds: tuple[Threshold, ...] = ()
    min_coverage: float = 0.95
    """Smallest share of rows that every metric must be able to judge."""
    max_abstained: float = 0.2
    """Largest share of rows on which a scorer may abstain."""
    concurrency: int = 4
    """Cases under way at a time."""
    timeout_s: float = 120.0
    """Longest time for one case, the client's retries included (seconds)."""
    repeats: int = 1
    """How often every case is run; repeats of one case count as one cluster."""
    task: str = "callable"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Shown in the report."""
    seed: int = 0
    """Of the bootstrap, and of the order of cases where the run may stop early."""
    several_releases: bool = False
    """Whether rows that different releases answered may be added up."""
    k: Mapping[str, int] = field(default_factory=dict)
    """By metric, the k of pass@k and pass^k."""
    decided: Decided | None = None
    """Asked now and then whether the cases so far are enough; None runs all of them."""
    look_every: int = 20
    """So many rows between two such looks."""
    configuration: Json = None
    """What the scorers were built from; part of a journal's identity."""
    means: Means = Means()
    """Cap, pace, journal and cache."""

    def __post_init__(self) -> None:
        if not self.data.cases:
            raise ValueError("no cases, expected at least one")
        for name in ("concurrency", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("min_coverage", "max_abstained"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a share from 0 to 1")
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s is {self.timeout_s}, expected more than 0")


async def run_suite(
    suite: Suite, progress: Progress | None = None, *, stop: asyncio.Event | None = None
) -> SuiteReport:
    """Run a suite to its end, or until `stop` is set; closes only what scorers opened themselves.

    Raises:
        DataError: the journal is another suite's, or in use.
    """
    started, stop = time.perf_counter(), stop or asyncio.Event()
    purse = suite.means.purse(run_digest(suite), suite.concurrency, suite.timeout_s)
    if (watch := getattr(progress, "watch", None)) is not None:
        watch(purse.ledger.spend)
    try:
        with purse.open():
            ask = suite.means.executor.rows if suite.means.executor else asked
            rows, stopped = await ask(suite, purse, progress, stop)
            if stopped:
                purse.ledger.refuse(Refused(stopped.reason))
            limit_s = suite.means.run_timeout_s
            left_s = None if limit_s is None else max(0.0, limit_s - (time.perf_counter() - started))
            async with ending(purse.ledger, stop, left_s):
                rows = await with_batches(rows, suite.scorers)
            if not stopped and (refused := purse.ledger.refused):
                stopped = _failure(refused, suite)
    except BaseException:
        purse.close()
        raise
    finally:
        for scorer in suite.scorers.values():
            if (close := getattr(scorer, "aclose", None)) is not None:
                await close()
    done = stopped is None and not any(_may_pass(row) for row in rows)
    purse.close(remove=done and suite.means.passing)
    if stopped and purse.journalled:
        stopped = replace(stopped, reason=f"{stopped.reason}; the same command goes on where it stopped")
    found = await asyncio.to_thread(summarise, suite, rows, stopped)
    spent = purse.ledger.spend()
    planned_rows = len(suite.data.cases) * suite.repeats if suite.decided else 0
    return replace(
        found,
        duration_s=time.perf_counter() - started,
        planned_rows=planned_rows,
        spend=spent if suite.target.remote or purse.journalled or spent.calls or spent.kept else None,
        looks=look.note(suite.data, suite.name, suite.target.name) if not stopped else look.seen(suite.data),
    )


async def asked(
    suite: Suite,
    purse: Purse,
    progress: Progress | None,
    stop: asyncio.Event,
    waiting: Sequence[tuple[Case, int]] = (),
) -> tuple[list[Row], Failure | None]:
    """Ask and score here, within the block of an open purse; how a suite is run without another executor.

    Args:
        suite: The suite.
        purse: Open.
        progress: Told after every case.
        stop: Ends the run when set.
        waiting: Only these cases with their repeats; empty takes all.

    Returns:
        A row per case and repeat, and why the run was given up (None when it was not).
    """
    return await _Asking(suite, purse, progress, stop, waiting).rows()


def planned(suite: Suite) -> list[tuple[Case, int]]:
    """Return all cases with their repeats, in the order in which they are asked."""
    if suite.decided:
        return _mixed(suite)
    return [(case, repeat) for repeat in range(suite.repeats) for case in suite.data.cases]


def not_run(suite: Suite, case: Case, repeat: int) -> Row:
    """Return the row of a case that the run did not come to."""
    failure = Failure(Cause.INFRASTRUCTURE, "not run, as the suite was given up")
    return Row(case, repeat, None, failure, _all_unscored(suite.scorers, failure))


class _Asking:
    """One pass over the cases: workers take them from one queue, in order."""

    def __init__(
        self,
        suite: Suite,
        purse: Purse,
        progress: Progress | None,
        stop: asyncio.Event,
        waiting: Sequence[tuple[Case, int]],
    ) -> None:
        self._suite = suite
        self._direct = not (suite.target.remote or purse.journalled)
        self._stop = stop
        self._progress = progress
        self._waiting = list(waiting) or planned(suite)
        self._enough = self._looking = False
        self._total = len(self._waiting)
        self._queue = iter(self._waiting)
        self._done: dict[tuple[str, int], Row] = {}
        self._answered = False
        self._stopped: Failure | None = None

    async def rows(self) -> tuple[list[Row], Failure | None]:
        """Return a row per case and repeat, and why the run was given up (None when it was not)."""
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._work()) for _ in range(min(self._suite.concurrency, self._total))
            ]
            watch = group.create_task(self._watch(workers))
            await asyncio.wait(workers)
            watch.cancel()
        if self._enough:
            return [self._done[c.id, r] for c, r in self._waiting if (c.id, r) in self._done], self._stopped
        return [self._row(case, repeat) for case, repeat in self._waiting], self._stopped

    async def _watch(self, workers: Sequence[asyncio.Task[None]]) -> None:
        limit_s = self._suite.means.run_timeout_s
        try:
            await asyncio.wait_for(self._stop.wait(), limit_s)
            reason = "interrupted"
        except TimeoutError:
            reason = f"the run's {limit_s:g} s are over"
        self._stopped = self._stopped or Failure(Cause.INFRASTRUCTURE, reason)
        for worker in workers:
            worker.cancel()

    def _row(self, case: Case, repeat: int) -> Row:
        done = self._done.get((case.id, repeat))
        return not_run(self._suite, case, repeat) if done is None else done

    async def _work(self) -> None:
        for case, repeat in self._queue:
            if self._stopped or self._enough:
                return
            row = await self._one(case, repeat)
            self._done[case.id, repeat] = row
            self._give_up_if_hopeless(row)
            if self._progress:
                self._progress(len(self._done), self._total)
            await self._look()

    async def _look(self) -> None:
        """Ask whether the cases so far are enough; one look at a time."""
        decided, n = self._suite.decided, len(self._done)
        if (
            decided is None
            or self._looking
            or self._stopped
            or n % self._suite.look_every
            or n == self._total
        ):
            return
        self._looking = True
        rows = list(self._done.values())
        self._enough = await asyncio.to_thread(lambda: decided(summarise(self._suite, rows, None)))
        self._looking = False

    async def _one(self, case: Case, repeat: int) -> Row:
        suite = self._suite
        attributes = {
            names.EVALUATION_NAME: suite.name,
            names.EVAL_SUITE: suite.name,
            names.EVAL_CASE_ID: case.id,
        }
        try:
            with span("evaluate", suite.name, attributes):
                output = await self._output(case, repeat)
        except Exception as error:  # a target may raise anything; the row says what it was
            failure = _failure(error, suite)
            return Row(case, repeat, None, failure, _all_unscored(suite.scorers, failure))
        try:
            with place(case.id, repeat):
                scores = {
                    name: await _scored_by(scorer, case, output)
                    for name, scorer in suite.scorers.items()
                    if not isinstance(scorer, BatchScorer | SuiteMetric)
                }
        except Refused as error:
            failure = _failure(error, suite)
            self._stopped = self._stopped or failure
            return Row(case, repeat, output, failure, _all_unscored(suite.scorers, failure))
        return Row(case, repeat, output, None, scores)

    async def _output(self, case: Case, repeat: int) -> Output:
        target, began = self._suite.target, 0.0

        async def call() -> Paid:
            nonlocal began
            began = began or time.perf_counter()
            output = await target.answer(case)
            if not getattr(target, "played_back", False):
                output = replace(output, latency_s=time.perf_counter() - began)
            used, price = output.usage, output.cost_pico_usd
            tokens = used.input_tokens + used.output_tokens if used else None
            # A function of one's own that names no price is free, with a journal as without one.
            price = 0 if price is None and not target.remote else price
            return Paid(output_json(output), price, tokens=tokens)

        if self._direct:
            began = time.perf_counter()
            output = await in_time(target.answer(case), self._suite.timeout_s)
            if getattr(target, "played_back", False):
                return output
            return replace(output, latency_s=time.perf_counter() - began)
        with place(case.id, repeat):
            found = await paid([identity(target), case.input], call, payer="target")
        output = output_of(found.value)
        price = found.cost_pico_usd if target.remote or output.cost_pico_usd is not None else None
        return replace(output, cached=found.kept, cost_pico_usd=price)

    def _give_up_if_hopeless(self, row: Row) -> None:
        if row.failure is None or row.failure.cause is Cause.TARGET:
            self._answered = True
            return
        hopeless = not self._answered and len(self._done) >= min(_PATIENCE, self._total)
        if row.failure.cause is Cause.SETUP or hopeless:
            self._stopped = self._stopped or row.failure


def _mixed(suite: Suite) -> list[tuple[Case, int]]:
    """Order rows at random, those of a cluster together: what is seen early must speak for the rest."""
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in suite.data.cases:
        groups.setdefault(case.source, []).append(case)
    order = list(groups.values())
    random.Random(suite.seed).shuffle(order)
    return [(case, repeat) for group in order for case in group for repeat in range(suite.repeats)]


def _failure(error: Exception, suite: Suite) -> Failure:
    """Say whose doing an error is. Only its class is in the reason, as a message may quote the case."""
    status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
    reason, detail = f"{type(error).__name__}{status}", str(error)
    if isinstance(error, Late):
        cause = Cause.INFRASTRUCTURE if suite.target.remote else Cause.TARGET
        return Failure(cause, detail)
    if isinstance(error, Refused):
        return Failure(Cause.SETUP, str(error))
    if isinstance(error, _SETUP):
        return Failure(Cause.SETUP, reason, detail)
    if isinstance(error, _INFRASTRUCTURE):
        return Failure(Cause.INFRASTRUCTURE, reason, detail)
    return Failure(Cause.TARGET, reason, detail)


def _may_pass(row: Row) -> bool:
    """Whether the same row may well be better next time."""
    return any(score.infrastructure for score in row.scores.values())


def _all_unscored(scorers: Mapping[str, AnyScorer], failure: Failure) -> dict[str, Score]:
    blameless = failure.cause is not Cause.TARGET
    return dict.fromkeys(scorers, unscored(failure.reason, detail=failure.detail, infrastructure=blameless))


async def _scored_by(scorer: Scorer, case: Case, output: Output) -> Score:
    try:
        result = scorer(case, output)
        score = await result if inspect.isawaitable(result) else result
        return score if isinstance(score, Score) else scored(score)
    except Refused:  # the run's affair
        raise
    except _INFRASTRUCTURE as error:  # a judge out of reach says nothing about the target
        return unscored(f"the judge: {type(error).__name__}", detail=str(error), infrastructure=True)
    except Late:
        return unscored("the judge gave no answer in time", infrastructure=True)
    except Exception as error:  # a scorer's own fault must not lose the row, nor pass as a zero
        return unscored(f"the scorer raised {type(error).__name__}", detail=str(error))
