"""The Python face: `run` and `arun` judge a target without a suite file."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith_evals import contest
from trilith_evals.case import Case
from trilith_evals.dataset import Columns, Dataset, from_rows, load
from trilith_evals.gate import Gate, Threshold, refuse_intervals
from trilith_evals.means import Means
from trilith_evals.recorded import RecordedSuite, read, taken
from trilith_evals.repeat import passes
from trilith_evals.report import Report, suite_json
from trilith_evals.runner import Suite, run_suite
from trilith_evals.scorer import AnyScorer, build, connect, metric_name
from trilith_evals.split import Split
from trilith_evals.target import CallableTarget, ModelTarget, Target, Task, shown
from trilith_evals.trial import decided, refuse_early, spelled, tried


async def arun(
    target: str | Target | Callable[[Any], Any],
    data: str | Path | Iterable[Case | Mapping[str, Any]],
    scorers: Sequence[str | AnyScorer],
    *,
    name: str = "suite",
    columns: Columns | None = None,
    limit: int | None = None,
    split: str | Split | None = None,
    thresholds: Sequence[Threshold] = (),
    gates: Sequence[Gate] = (),
    against: Report | Path | None = None,
    stop_early: bool = False,
    min_coverage: float = 0.95,
    max_abstained: float = 0.2,
    concurrency: int = 4,
    timeout_s: float = 120.0,
    repeats: int = 1,
    k: Mapping[str, int] | None = None,
    seed: int = 0,
    several_releases: bool = False,
    task: Task = "chat",
    system: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    means: Means | None = None,
) -> Report:
    """Run every case through a target and judge what comes out.

    Args:
        target: A function of a case's input (plain or async), a `Target`, or the name of a model, or of one
            release of it: `model@DIGEST`.
        data: A dataset's path, or cases, or rows that `columns` reads.
        scorers: Names of scorers, or scorers: callables of (case, output), batch scorers, suite metrics.
        name: Of the suite, in reports and spans.
        columns: Which column of the data is what.
        limit: Run the first so many cases only.
        split: Run this part only: a name that `NAME.schema.yaml` beside the data knows, or a part.
        thresholds: Conditions on the metrics.
        gates: Conditions that fail only beyond doubt, also against the run before and for slices.
        against: The run before: its report, or the file that was written of it.
        stop_early: Stop when all gates have passed or one has failed; intervals are always-valid ones then.
        min_coverage: Smallest share of rows that every metric must be able to judge.
        max_abstained: Largest share of rows on which a scorer may abstain.
        concurrency: Cases under way at a time.
        timeout_s: Longest time for one case (seconds).
        repeats: How often every case is run.
        k: By metric, for the chances that one of k tries is right, and that all are (pass@k, pass^k).
        seed: Of the bootstrap.
        several_releases: Add up rows that different releases answered; else the run could not be made.
        task: How a model is asked; only with a model's name.
        system: System message; only with a model's name and the task chat.
        parameters: Sent with every call; only with a model's name.
        base_url: Gateway or OpenAI-compatible server; only with a model's name. None: as `AsyncClient`.
        api_key: Credential there. None: as `AsyncClient`.
        means: Cost cap, pace, retries, journal and cache. None: two retries, and nothing kept.

    Returns:
        The report; failing cases are rows in it, not exceptions.

    Raises:
        DataError: the data is wrong.
        SettingsError: a scorer's name or a setting of the client is wrong.
        MissingExtra: a scorer needs a library that is not installed.
        ValueError: two scorers make one metric, or a threshold or gate names none, or `stop_early`
            has no gate, or one on scores that are only there at the end.
    """
    built = _by_metric(scorers)
    metrics = [*built, *(made for metric, n in (k or {}).items() for made in passes(metric, n))]
    for threshold in thresholds:
        if threshold.metric not in metrics:
            expected = ", ".join(metrics)
            raise ValueError(f"a threshold names the metric {threshold.metric!r}, expected one of {expected}")
    for gate in gates:
        if gate.metric not in metrics:
            expected = ", ".join(metrics)
            raise ValueError(f"a gate names the metric {gate.metric!r}, expected one of {expected}")
    before = _before(against, name)
    cases = _dataset(data, columns, limit, split)
    every = spelled(gates, cases.cases)
    if stop_early:
        refuse_early({m: built.get(m) for m in (gate.metric for gate in gates)})
        refuse_intervals(thresholds)
    rows = len(cases.cases) * repeats
    opened = _target(target, task, system, parameters, base_url, api_key, timeout_s)
    suite = Suite(
        name=name,
        target=opened,
        data=cases,
        scorers=built,
        thresholds=tuple(thresholds),
        min_coverage=min_coverage,
        max_abstained=max_abstained,
        concurrency=concurrency,
        timeout_s=timeout_s,
        repeats=repeats,
        k=dict(k or {}),
        task=task if isinstance(target, str) else "callable",
        parameters=shown(parameters or {}),
        seed=seed,
        several_releases=several_releases,
        decided=functools.partial(
            decided, gates=every, before=(before or {}).get(name), planned_rows=rows, of=len(every)
        )
        if stop_early
        else None,
        means=means or Means(),
    )
    started, clock = datetime.now(UTC), time.perf_counter()
    if isinstance(target, str):
        connect(built.values(), base_url, api_key)
    try:
        found = await run_suite(suite)
    finally:
        if opened is not target:
            await opened.aclose()
    judged = tried(
        [found],
        {name: every},
        before,
        named=str(against) if isinstance(against, Path) else "the run before",
        min_coverage={name: min_coverage},
        figures=contest.figures_of({name: built}),
    )
    return Report(judged, started, time.perf_counter() - clock)


def run(
    target: str | Target | Callable[[Any], Any],
    data: str | Path | Iterable[Case | Mapping[str, Any]],
    scorers: Sequence[str | AnyScorer],
    **options: Any,
) -> Report:
    """Do what `arun` does, from code that is not async; the same arguments."""
    return asyncio.run(arun(target, data, scorers, **options))


def _before(against: Report | Path | None, name: str) -> dict[str, RecordedSuite] | None:
    if against is None:
        return None
    if isinstance(against, Report):
        found = {suite.name: taken(suite_json(suite, content=True)) for suite in against.suites}
    else:
        found = read(against)
    if name not in found:
        raise DataError(f"the run before has no suite {name!r}, but {', '.join(found)}")
    return found


def _by_metric(scorers: Sequence[str | AnyScorer]) -> dict[str, AnyScorer]:
    built: dict[str, AnyScorer] = {}
    for given in scorers:
        scorer = build(given, {}) if isinstance(given, str) else given
        metric = metric_name(scorer)
        if metric in built:
            raise ValueError(f"two scorers make the metric {metric!r}; give one another name")
        built[metric] = scorer
    if not built:
        raise ValueError("no scorers, expected at least one")
    return built


def _dataset(
    data: str | Path | Iterable[Case | Mapping[str, Any]],
    columns: Columns | None,
    limit: int | None,
    split: str | Split | None,
) -> Dataset:
    if isinstance(data, str | Path):
        return load(Path(data), columns, limit=limit, split=split)
    if isinstance(split, str):
        raise DataError(f"split is the name {split!r}, expected a Split for rows in memory")
    if isinstance(data, Mapping):
        raise DataError("data is one mapping, expected a path, or a list of cases or rows")
    return from_rows(data, columns, limit=limit, split=split)


def _target(
    target: str | Target | Callable[[Any], Any],
    task: Task,
    system: str | None,
    parameters: Mapping[str, Any] | None,
    base_url: str | None,
    api_key: str | None,
    timeout_s: float,
) -> Target:
    if isinstance(target, str):
        from trilith import AsyncClient

        client = AsyncClient(base_url, api_key, timeout_s=timeout_s)
        return ModelTarget(client, target, task=task, system=system, parameters=parameters)
    if isinstance(target, Target):
        return target
    return CallableTarget(target)
