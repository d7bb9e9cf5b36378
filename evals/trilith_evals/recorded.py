"""Reads what `--json` or `--save-as` has written of a run, to compare it with another one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith_evals.repeat import chances


@dataclass(frozen=True, slots=True)
class RecordedMetric:
    """One metric of a recorded suite."""

    scores: Mapping[str, float]
    """By case; of several repeats, their mean. Cases without any score are left out."""
    cases: int
    """All cases, scored or not."""
    higher_is_better: bool
    """Which way is up for the figure; the scores of a figure over the whole suite are losses."""
    over_suite: bool
    """Whether the figure is made over all pairs; the scores are losses then."""
    pairs: Mapping[str, Sequence[tuple[Any, Any]]] = field(default_factory=dict)
    """Truths and predictions by case, of a figure over all pairs; empty where they were not recorded."""
    value: float | None = None
    """The figure; None where there was none."""


@dataclass(frozen=True, slots=True)
class RecordedSuite:
    """One suite of a recorded run."""

    name: str
    digest: str
    """Of the dataset."""
    clusters: Mapping[str, str]
    """What each case came from; cases that stand alone are left out."""
    metrics: Mapping[str, RecordedMetric]
    prints: Mapping[str, str] = field(default_factory=dict)
    """Fingerprint of each case's question and expected answer, where they were recorded."""
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What each case belongs to."""

    @property
    def slices(self) -> list[str]:
        """Every value of every tag, such as `language=de`."""
        return sorted({f"{tag}={value}" for tags in self.tags.values() for tag, value in tags.items()})


def read_json(path: Path) -> Any:
    """Return what a run's file holds, as plain JSON values.

    Raises:
        DataError: the file cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON; `trilith eval run --json PATH` writes such a file") from error


def read(path: Path) -> dict[str, RecordedSuite]:
    """Return a run's suites by name.

    Raises:
        DataError: the file cannot be read, or is no report.
    """
    told = read_json(path)
    return suites(told, str(path))


def suites(told: Any, place: str = "the report") -> dict[str, RecordedSuite]:
    """Return the suites by name of the run that `Report.to_json` told of.

    Args:
        told: Plain JSON values.
        place: What an error calls it.

    Raises:
        DataError: it is no report.
    """
    try:
        return {suite["name"]: taken(suite) for suite in told["suites"]}
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{place} is no report of a run ({type(error).__name__}: {error}); "
            "`trilith eval run --json PATH` writes one"
        ) from error


def taken(told: Mapping[str, Any]) -> RecordedSuite:
    """Take one suite from its plain JSON values.

    Raises:
        DataError: a row stands twice, or a score is not a finite number.
    """
    rows = told["rows"]
    seen = set()
    for row in rows:
        once = row["id"], row.get("repeat", 0)
        if once in seen:
            raise DataError(f"suite {told['name']}: the case {once[0]!r} stands twice with the same repeat")
        seen.add(once)
    return RecordedSuite(
        told["name"],
        told["digest"],
        clusters={row["id"]: row["cluster"] for row in rows if row.get("cluster") is not None},
        metrics={figure["metric"]: _metric(figure, rows) for figure in told["figures"]}
        | _passes(told.get("repeated", ()), rows),
        prints={row["id"]: row["print"] for row in rows if "print" in row},
        tags={row["id"]: row["tags"] for row in rows if row.get("tags")},
    )


def common(before: RecordedSuite, after: RecordedSuite) -> RecordedSuite:
    """Return the run before without the cases whose question or expected answer is another one now."""
    changed = {
        case for case, mark in before.prints.items() if case in after.prints and after.prints[case] != mark
    }
    return before if not changed else _kept(before, lambda case: case not in changed)


def part(suite: RecordedSuite, named: str, tags: Mapping[str, Mapping[str, str]]) -> RecordedSuite:
    """Return what a suite has of one slice, such as `language=de`, by these tags of the cases."""
    tag, _, value = named.partition("=")
    return _kept(suite, lambda case: tags.get(case, {}).get(tag) == value)


def _kept(suite: RecordedSuite, kept: Callable[[str], bool]) -> RecordedSuite:
    metrics = {}
    for name, metric in suite.metrics.items():
        scores = {case: score for case, score in metric.scores.items() if kept(case)}
        pairs = {case: pairs for case, pairs in metric.pairs.items() if kept(case)}
        metrics[name] = replace(metric, scores=scores, pairs=pairs)
    return replace(suite, metrics=metrics)


def _passes(repeated: Sequence[Mapping[str, Any]], rows: list[dict[str, Any]]) -> dict[str, RecordedMetric]:
    """Return pass@k and pass^k of every case as metrics of their own."""
    found = {}
    for one in repeated:
        for at, figure in enumerate(one["figures"]):
            if figure["estimate"] is None:
                continue
            tries: dict[str, list[float]] = {row["id"]: [] for row in rows}
            for row in rows:
                if (value := row["scores"][one["metric"]]["value"]) is not None:
                    tries[row["id"]].append(value)
            k = int(re.split("[@^]", figure["metric"])[-1])
            known = {case: chance for case, values in tries.items() if (chance := chances(values, k))}
            scores = {case: chance[at] for case, chance in known.items()}
            value = figure["estimate"]["value"]
            found[figure["metric"]] = RecordedMetric(scores, len(tries), True, False, value=value)
    return found


def _metric(figure: dict[str, Any], rows: list[dict[str, Any]]) -> RecordedMetric:
    name = figure["metric"]
    found: dict[str, list[float]] = {}
    pairs: dict[str, list[tuple[Any, Any]]] = {}
    for row in rows:
        value = row["scores"][name]["value"]
        if value is None:
            continue
        if not math.isfinite(value):
            raise DataError(f"the case {row['id']!r} has the score {value} under {name}, expected a number")
        found.setdefault(row["id"], []).append(value)
        if (pair := row.get("pairs", {}).get(name)) is not None:
            pairs.setdefault(row["id"], []).append((pair[0], pair[1]))
    estimate = figure.get("estimate")
    return RecordedMetric(
        {case: math.fsum(values) / len(values) for case, values in found.items()},
        len({row["id"] for row in rows}),
        figure["higher_is_better"],
        figure["over_suite"],
        pairs,
        estimate["value"] if estimate else None,
    )
