"""Runs one suite: asks the target with bounded concurrency, scores, and adds up.

Whatever goes wrong with a case becomes a row with a reason; only a wrong suite raises.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections import Counter
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
from trilith_evals import estimate, look
from trilith_evals.answer import output_json, output_of
from trilith_evals.batch import ending, with_batches
from trilith_evals.case import Case, Output
from trilith_evals.dataset import Dataset
from trilith_evals.figure import Figure
from trilith_evals.gate import Check, Outcome, Threshold, judge
from trilith_evals.means import Means, identity, run_digest
from trilith_evals.purse import Late, Paid, Purse, in_time, paid, place
from trilith_evals.repeat import Repeated, repeated
from trilith_evals.report import Cause, Failure, Row, SuiteReport, worst_first
from trilith_evals.score import Score, State, scored, unscored
from trilith_evals.scorer import AnyScorer, BatchScorer, Scorer, SuiteMetric, higher_is_better
from trilith_evals.spend import Refused
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
    found = await asyncio.to_thread(_report, suite, rows, stopped)
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


def report_of(suite: Suite, rows: Sequence[Row], stopped: Failure | None) -> SuiteReport:
    """Add up rows."""
    return _report(suite, rows, stopped)


def planned(suite: Suite) -> list[tuple[Case, int]]:
    """Return all cases with their repeats, in the order in which they are asked."""
    if suite.decided:
        return _mixed(suite)
    return [(case, repeat) for repeat in range(suite.repeats) for case in suite.data.cases]


def not_run(suite: Suite, case: Case, repeat: int) -> Row:
    """Return the row of a case that the run did not come to."""
    failure = Failure(Cause.INFRASTRUCTURE, "not run, as the suite was given up")
    return Row(case, repeat, None, failure, _all_unscored(suite.scorers, failure))


def _report(suite: Suite, rows: Sequence[Row], stopped: Failure | None) -> SuiteReport:
    rows = [_with_losses(row, suite.scorers) for row in rows]
    figures = _figures(suite, rows)
    several = _repeated(suite, rows) if suite.repeats > 1 else ()
    checks = judge(
        (*figures, *(figure for one in several for figure in one.figures)),
        suite.thresholds,
        min_coverage=suite.min_coverage,
        max_abstained=suite.max_abstained,
        stopped=stopped.reason if stopped else "",
    )
    releases = sorted({row.output.release for row in rows if row.output and row.output.release})
    if len(releases) > 1 and not suite.several_releases:
        checks = (*checks, _several(releases))
    return SuiteReport(
        name=suite.name,
        target=suite.target.name,
        task=suite.task,
        data=suite.data.label,
        digest=suite.data.digest,
        judges=tuple(
            mark(name) for name, scorer in suite.scorers.items() if (mark := getattr(scorer, "mark", None))
        ),
        cases=len({row.case.id for row in rows}),
        repeats=suite.repeats,
        thresholds=suite.thresholds,
        figures=figures,
        checks=checks,
        rows=worst_first(rows, figures),
        duration_s=0.0,
        stopped=stopped,
        parameters=suite.parameters,
        slices=_slices(suite, rows),
        repeated=several,
        split=suite.data.split,
        held_out=suite.data.held_out,
        content_digest=suite.data.content_digest,
        source=suite.data.path,
        releases=tuple(releases),
    )


def _several(releases: Sequence[str]) -> Check:
    """Return the check that fails where a figure would speak of no release in particular."""
    found = (
        f"{', '.join(releases)} answered, expected one; name one in target.release, or allow several_releases"
    )
    return Check("one release", "", Outcome.COULD_NOT_RUN, found)


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
        self._enough = await asyncio.to_thread(lambda: decided(_report(self._suite, rows, None)))
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
        groups.setdefault(_cluster(case), []).append(case)
    order = list(groups.values())
    random.Random(suite.seed).shuffle(order)
    return [(case, repeat) for group in order for case in group for repeat in range(suite.repeats)]


def _failure(error: Exception, suite: Suite) -> Failure:
    """Say whose doing an error is. Only its class is in the reason, as a message may quote the case."""
    status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
    reason, detail = f"{type(error).__name__}{status}", str(error)
    if isinstance(error, Late):
        cause = Cause.INFRASTRUCTURE if suite.target.remote else Cause.TARGET
        return Failure(cause, f"no answer within {suite.timeout_s:g} s")
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


def _with_losses(row: Row, scorers: Mapping[str, AnyScorer]) -> Row:
    """Show per row how wrong a prediction is; the figure itself is made over all pairs."""
    losses = {
        name: _loss(scorer, row.case, row.output)
        for name, scorer in scorers.items()
        if isinstance(scorer, SuiteMetric) and row.output is not None
    }
    if not losses or row.output is None:
        return row
    pairs = {
        name: scorer.pair(row.case, row.output)
        for name, scorer in scorers.items()
        if isinstance(scorer, SuiteMetric) and losses[name].state is State.SCORED
    }
    return replace(row, scores={**row.scores, **losses}, pairs=pairs)


def _loss(scorer: SuiteMetric, case: Case, output: Output) -> Score:
    try:
        return scored(scorer.loss(*scorer.pair(case, output)))
    except ValueError as error:
        return unscored(str(error))
    except Exception as error:  # as for a single row
        return unscored(f"the scorer raised {type(error).__name__}", detail=str(error))


def _figures(suite: Suite, rows: Sequence[Row], part: str = "") -> tuple[Figure, ...]:
    clustered = suite.repeats > 1 or any(row.case.cluster is not None for row in rows)
    return tuple(_figure(suite, name, rows, part, clustered=clustered) for name in suite.scorers)


def _slices(suite: Suite, rows: Sequence[Row]) -> tuple[Figure, ...]:
    """Return the figures of every tag's values; rows that lack a tag are in none of its slices."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        for tag in row.case.tags.items():
            parts.setdefault(tag, []).append(row)
    found = [_figures(suite, parts[at], f"{at[0]}={at[1]}") for at in sorted(parts)]
    return tuple(figure for figures in found for figure in figures)


def _repeated(suite: Suite, rows: Sequence[Row]) -> tuple[Repeated, ...]:
    clusters = {row.case.id: _cluster(row.case) for row in rows}
    found = []
    for name, scorer in suite.scorers.items():
        tries: dict[str, list[float]] = {row.case.id: [] for row in rows}
        for row in rows:
            if (value := row.scores[name].value) is not None:
                tries[row.case.id].append(value)
        if not isinstance(scorer, SuiteMetric):
            found.append(repeated(name, tries, clusters, suite.k.get(name)))
    return tuple(one for one in found if one is not None)


def _figure(suite: Suite, name: str, rows: Sequence[Row], part: str, *, clustered: bool) -> Figure:
    scorer = suite.scorers[name]
    judged = [row for row in rows if row.scores[name].state is State.SCORED]
    # A case without a cluster of its own stands alone; its repeats do not.
    clusters = [_cluster(row.case) for row in judged] if clustered else None
    found, bare, problem = None, None, ""
    if judged and isinstance(scorer, SuiteMetric):
        truths, predictions = [row.pairs[name][0] for row in judged], [row.pairs[name][1] for row in judged]
        try:
            draws = 400 if part else estimate.RESAMPLES  # slices are many
            found = estimate.bootstrap(
                scorer.value,
                truths,
                predictions,
                clusters,
                seed=suite.seed,
                weighted=getattr(scorer, "weighted", None),
                resamples=draws,
            )
        except ValueError as error:
            problem = str(error)
    elif judged:
        values = [score.value for row in judged if (score := row.scores[name]).value is not None]
        found = estimate.mean(values, clusters)
        # A judge that knows people's labels of some rows says what people would say of all of them.
        if (correct := getattr(scorer, "corrected", None)) is not None:
            try:
                told = correct([(row.case, v) for row, v in zip(judged, values, strict=True)], clusters)
            except ValueError as error:
                found, problem = None, str(error)
            else:
                found, bare = (found, None) if told is None else (told.estimate, found)
    missing = [row.scores[name] for row in rows if row.scores[name].state is State.UNSCORED]
    bounds = None
    if missing and not isinstance(scorer, SuiteMetric):
        bounds = estimate.whatever([row.scores[name].value or 0.0 for row in judged], len(missing))
    return Figure(
        metric=name,
        estimate=found,
        scored=len(judged),
        abstained=len(rows) - len(judged) - len(missing),
        unscored=len(missing),
        infrastructure=sum(score.infrastructure for score in missing),
        reasons=dict(Counter(score.reason for score in missing).most_common()),
        higher_is_better=higher_is_better(scorer),
        over_suite=isinstance(scorer, SuiteMetric),
        slice=part,
        bounds=bounds,
        problem=problem,
        uncorrected=bare,
    )


def _cluster(case: Case) -> tuple[str, str]:
    return ("case", case.id) if case.cluster is None else ("cluster", case.cluster)
