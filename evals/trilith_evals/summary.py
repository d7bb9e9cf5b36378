"""Adds up the rows of a run: figures with their intervals, slices, repeats, and the checks of thresholds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trilith_evals import estimate
from trilith_evals.figure import Figure
from trilith_evals.gate import Check, Outcome, judge
from trilith_evals.repeat import Repeated, repeated
from trilith_evals.report import Failure, Row, SuiteReport, worst_first
from trilith_evals.score import Score, State, scored, unscored
from trilith_evals.scorer import AnyScorer, SuiteMetric, higher_is_better

if TYPE_CHECKING:
    from trilith_evals.runner import Suite


def summarise(suite: Suite, rows: Sequence[Row], stopped: Failure | None) -> SuiteReport:
    """Add up the rows of a run, or of what there is of it so far; `stopped` says why it was given up."""
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


def _with_losses(row: Row, scorers: Mapping[str, AnyScorer]) -> Row:
    """Show per row how wrong a prediction is; the figure itself is made over all pairs."""
    losses: dict[str, Score] = {}
    pairs: dict[str, tuple[Any, Any]] = {}
    for name, scorer in scorers.items():
        if not isinstance(scorer, SuiteMetric) or row.output is None:
            continue
        try:
            pair = scorer.pair(row.case, row.output)
            losses[name] = scored(scorer.loss(*pair))
        except ValueError as error:
            losses[name] = unscored(str(error))
        except Exception as error:  # a scorer's own fault must not lose the row, nor pass as a zero
            losses[name] = unscored(f"the scorer raised {type(error).__name__}", detail=str(error))
        else:
            if losses[name].state is State.SCORED:
                pairs[name] = pair
    return replace(row, scores={**row.scores, **losses}, pairs=pairs) if losses else row


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
    clusters = {row.case.id: row.case.source for row in rows}
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
    clusters = [row.case.source for row in judged] if clustered else None
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
