"""Says from a pilot run how many cases a later one needs, and what so many as now can show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trilith_evals import comparison, contest, estimate
from trilith_evals.figure import brief
from trilith_evals.recorded import RecordedSuite

_BEFORE = "against a run before"


@dataclass(frozen=True, slots=True)
class Foresight:
    """One metric and one question to it."""

    suite: str
    metric: str
    question: str
    """against a bound, or against a run before."""
    cases: int
    """Cases of the pilot."""
    clusters: int
    """Independent ones among them."""
    needed: int | None
    """Independent cases; None when the pilot shows no spread."""
    detectable: float | None
    """What so many cases as the pilot's show."""
    at_most: bool = False
    """Whether it is an upper bound: one run does not tell how much alike two runs are on the same case."""

    def text(self, difference: float) -> str:
        """Say it in one line."""
        start = f"{self.suite}: {self.metric} {self.question}: "
        if self.needed is None or self.detectable is None:
            return f"{start}the pilot shows no spread, and tells nothing"
        most = "at most " if self.at_most else ""
        text = f"{start}{brief(difference)} takes {most}{self.needed:,} "
        if self.clusters < self.cases:
            rows = math.ceil(self.needed * self.cases / self.clusters)
            text += f"sources, {rows:,} cases at {self.cases / self.clusters:.1f} each"
        else:
            text += "cases"
        return f"{text}; the pilot's {self.cases:,} show {brief(self.detectable)}"


def foreseen(
    pilot: Mapping[str, RecordedSuite],
    second: Mapping[str, RecordedSuite] | None = None,
    *,
    difference: float,
    alpha: float = 0.05,
    power: float = 0.8,
) -> list[Foresight]:
    """Return what every metric of a pilot needs.

    Args:
        pilot: A run.
        second: Another run of the same cases; a comparison rests on how much they differ case by case.
        difference: What must be seen, in the metric's unit.
        alpha: Chance of an error, both sides together.
        power: Chance of seeing it.
    """
    found = []
    for name, suite in pilot.items():
        for metric, told in suite.metrics.items():
            if not told.over_suite and told.scores:
                n, k, error = _of_mean(told.scores, suite.clusters)
                found.append((name, metric, "against a bound", n, k, error, False))
                if second is None and error:
                    # Two runs of one case are seldom less alike than two cases, so this is enough.
                    found.append((name, metric, _BEFORE, n, k, error * math.sqrt(2), True))
            other = second.get(name) if second else None
            if other is not None and metric in other.metrics:
                both = contest.compared(suite, other, metric, alpha, 0.0, power=power)
                if both is not None:
                    apart = both.difference
                    found.append((name, metric, _BEFORE, apart.n, apart.clusters, apart.error, False))
    return [
        Foresight(
            *(name, metric, question, n, k),
            needed=comparison.needed(k, error, difference, alpha, power),
            detectable=comparison.detectable(error, alpha, power),
            at_most=at_most,
        )
        for name, metric, question, n, k, error, at_most in found
    ]


def _of_mean(scores: Mapping[str, float], clusters: Mapping[str, str]) -> tuple[int, int, float | None]:
    """Return cases, independent ones among them, and the standard error of the mean."""
    of = [clusters.get(case, ("case", case)) for case in scores]
    groups = list(estimate.grouped(list(scores.values()), of).values())
    spread = estimate.spread(groups, math.fsum(scores.values()) / len(scores))
    return len(scores), len(groups), math.sqrt(spread.variance) if spread else None
