"""Lets the batch scorers of a run judge all outputs, each in a thread, under the run's purse."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from trilith.errors import TrilithError
from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorer import AnyScorer, BatchScorer
from trilith_evals.spend import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trilith_evals.report import Row
    from trilith_evals.spend import Ledger


async def with_batches(rows: Sequence[Row], scorers: Mapping[str, AnyScorer]) -> list[Row]:
    """Return the rows with the scores of all batch scorers."""
    current = list(rows)
    answered = [i for i, row in enumerate(rows) if row.output is not None]
    pairs = [(row.case, row.output) for row in rows if row.output is not None]
    for name, scorer in scorers.items():
        if isinstance(scorer, BatchScorer) and pairs:
            scores = await asyncio.to_thread(_scored_by, scorer, pairs)
            for i, score in zip(answered, scores, strict=True):
                current[i] = replace(current[i], scores={**current[i].scores, name: score})
    return current


@asynccontextmanager
async def ending(ledger: Ledger, stop: asyncio.Event, left_s: float | None) -> AsyncIterator[None]:
    """Refuse further calls as soon as `stop` is set or the time is over; a thread cannot be broken off."""

    async def watch() -> None:
        try:
            await asyncio.wait_for(stop.wait(), left_s)
            ledger.refuse(Refused("interrupted"))
        except TimeoutError:
            ledger.refuse(Refused("the run's time is over"))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


def _scored_by(scorer: BatchScorer, pairs: Sequence[tuple[Case, Output]]) -> Sequence[Score]:
    try:
        scores = [s if isinstance(s, Score) else scored(s) for s in scorer.score_all(pairs)]
    except Refused as error:  # the run's affair; what has been found so far is not lost for it
        return [unscored(str(error), infrastructure=True)] * len(pairs)
    except TrilithError:  # a missing extra or a wrong param: the suite is wrong, not a row
        raise
    except Exception as error:  # as for a single row
        return [unscored(f"the scorer raised {type(error).__name__}", detail=str(error))] * len(pairs)
    if len(scores) != len(pairs):
        return [unscored(f"the scorer returned {len(scores)} scores for {len(pairs)} rows")] * len(pairs)
    return scores
