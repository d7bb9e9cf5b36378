"""Do the intervals cover the truth as often as they say, and how often does a comparison cry wolf?

`python -m bench.evals.statistics [--suites 2000] [--seed 1]` simulates suites whose truth is known: 10 to 60
documents with one to 30 questions each, the questions of a document more or less alike. Beside our rule stand
the ones in use: an interval that takes every question for a case of its own, and the bare difference of two
means. Beside the intervals of figures over all pairs (R2, an area under a curve, F1) stand the plain
percentiles of the same resamples, and DeLong's interval for an area where every question stands alone.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy
from bench.gateway.report import table

from trilith_evals import estimate, paired, scorer, sequence
from trilith_evals.comparison import Verdict, compare

_CUT = -0.6
"""Above it a hidden quality counts as a success."""
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Simulated:
    """One suite of two runs; the second is better by a known amount of hidden quality."""

    first: list[float]
    second: list[float]
    documents: list[int]


Scale = Callable[[float], float]
SCALES: dict[str, tuple[Scale, float]] = {
    "graded": (lambda quality: 1 / (1 + math.exp(-quality)), 0.5),
    "right or wrong": (lambda quality: float(quality > _CUT), _NORMAL.cdf(-_CUT)),
}
"""From hidden quality to a score; and the true mean."""


def simulate(
    rng: random.Random, scale: Scale, better: float = 0.0, documents: int | None = None
) -> Simulated:
    """Return one suite.

    Args:
        rng: The source of chance.
        scale: From hidden quality to a score.
        better: By how much the second run's hidden quality is higher (standard deviations).
        documents: How many; None draws 10 to 60.
    """
    count, alike = rng.randint(10, 60), rng.uniform(0, 0.8)
    wide = rng.random() < 0.5
    count = documents or count
    first, second, of = [], [], []
    for document in range(count):
        common = rng.gauss(0, math.sqrt(alike))
        fits = rng.gauss(0, 0.3)  # how the change suits this document
        size = min(30, 1 + int(rng.expovariate(0.3))) if wide else rng.randint(1, 8)
        for _ in range(size):
            quality = common + rng.gauss(0, math.sqrt(1 - alike))
            first.append(scale(quality + rng.gauss(0, 0.3)))
            second.append(scale(quality + rng.gauss(0, 0.3) + fits + better))
            of.append(document)
    return Simulated(first, second, of)


def simulate_few(rng: random.Random, name: str) -> tuple[list[float], list[int]]:
    """Return one suite of another shape: 5 to 10 documents, some of them ten times as long as others.

    Right or wrong: a document's rate is drawn from Beta(2.8, 1.2), mean 0.7. Graded: documents and questions
    both have Student's heavy tails (3 degrees), mean 0.
    """
    values: list[float] = []
    documents: list[int] = []
    for document in range(rng.randint(5, 10)):
        rate, common = rng.betavariate(2.8, 1.2), _heavy(rng)
        for _ in range(min(60, 1 + int(rng.lognormvariate(1.8, 0.9)))):
            right = float(rng.random() < rate)
            values.append(right if name == "right or wrong" else common + _heavy(rng))
            documents.append(document)
    return values, documents


def simulate_third(
    rng: random.Random, name: str, few: int, many: int
) -> tuple[list[float], list[int], float]:
    """Return one suite of a third shape, and its true mean: `few` to `many` documents of lognormal length.

    A document's rate is drawn from a Beta distribution around the true mean, 0.15 to 0.85. Right or wrong: by
    that rate. Graded: a rating from 0 to 4 by a rate of the question's own around it (Beta-binomial).
    """
    middle, spread = rng.uniform(0.5, 2.5), rng.uniform(0.2, 1.2)
    truth, alike = rng.uniform(0.15, 0.85), rng.uniform(0.02, 0.6)
    strength = 1 / alike - 1
    values: list[float] = []
    documents: list[int] = []
    for document in range(rng.randint(few, many)):
        rate = rng.betavariate(truth * strength, (1 - truth) * strength)
        for _ in range(max(1, min(80, round(rng.lognormvariate(middle, spread))))):
            if name == "right or wrong":
                values.append(float(rng.random() < rate))
            else:
                own = rng.betavariate(max(5 * rate, 1e-3), max(5 * (1 - rate), 1e-3))
                values.append(sum(rng.random() < own for _ in range(4)) / 4)
            documents.append(document)
    return values, documents, truth


def coverage_third(suites: int, seed: int) -> str:
    """Return how often the intervals hold the true mean in the suites that the method was chosen on."""
    rows = []
    for name in SCALES:
        for few, many in ((5, 10), (11, 20), (21, 60)):
            rng, ours, alone = random.Random(seed), 0, 0
            for _ in range(suites):
                values, documents, truth = simulate_third(rng, name, few, many)
                ours += _holds(estimate.mean(values, documents), truth)
                alone += _holds(estimate.mean(values), truth)
            rows.append((name, f"{few} to {many}", f"{ours / suites:.3f}", f"{alone / suites:.3f}"))
    return table(("scores", "documents", "ours, by document", "every question alone"), rows)


def _heavy(rng: random.Random) -> float:
    return rng.gauss(0, 1) / math.sqrt(rng.gammavariate(1.5, 2) / 3)


def coverage_few(suites: int, seed: int) -> str:
    """Return how often the intervals hold the true mean where documents are few and unlike each other."""
    rows = []
    for name, truth in (("graded", 0.0), ("right or wrong", 0.7)):
        rng, ours, alone = random.Random(seed), 0, 0
        for _ in range(suites):
            values, documents = simulate_few(rng, name)
            ours += _holds(estimate.mean(values, documents), truth)
            alone += _holds(estimate.mean(values), truth)
        rows.append((name, f"{ours / suites:.3f}", f"{alone / suites:.3f}"))
    return table(("scores", "ours, by document", "every question alone"), rows)


def coverage(suites: int, seed: int) -> str:
    """Return how often the 95 % intervals hold the true mean."""
    rows = []
    for name, (scale, _) in SCALES.items():
        truth = _truth(scale)
        rng, ours, alone = random.Random(seed), 0, 0
        for _ in range(suites):
            made = simulate(rng, scale)
            ours += _holds(estimate.mean(made.first, made.documents), truth)
            alone += _holds(estimate.mean(made.first), truth)
        rows.append((name, f"{ours / suites:.3f}", f"{alone / suites:.3f}"))
    return table(("scores", "ours, by document", "every question alone"), rows)


def alarms(suites: int, seed: int) -> str:
    """Return how often two runs are told apart, where they are alike and where they are not."""
    rows = []
    for name, (scale, _) in SCALES.items():
        for better in (0.0, -0.1, -0.2, -0.4):
            rng, ours, alone, bare = random.Random(seed), 0, 0, 0
            for _ in range(suites):
                made = simulate(rng, scale, better)
                cases = [str(at) for at in range(len(made.first))]
                pairs = dict(zip(cases, made.first, strict=True)), dict(zip(cases, made.second, strict=True))
                of = dict(zip(cases, made.documents, strict=True))
                ours += compare(*pairs, of).verdict is Verdict.WORSE
                alone += compare(*pairs).verdict is Verdict.WORSE
                bare += sum(made.second) < sum(made.first)
            rates = (f"{count / suites:.3f}" for count in (ours, alone, bare))
            rows.append((name, f"{better:+.1f}", *rates))
    return table(
        ("scores", "change (sd)", "worse: ours", "worse: every question alone", "worse: bare difference"),
        rows,
    )


def peeking(suites: int, seed: int) -> str:
    """Return how often an interval is wrong at one look at least, of a look after every fifth document."""
    rows = []
    for name, (scale, _) in SCALES.items():
        truth = _truth(scale)
        rng, ours, once, looks = random.Random(seed), 0, 0, 0
        for _ in range(suites):
            made = simulate(rng, scale, documents=100)
            wrong = [False, False]
            for seen in range(20, 101, 5):
                n = sum(document < seen for document in made.documents)
                found = estimate.mean(made.first[:n], made.documents[:n])
                valid = sequence.always_valid(found, len(made.first))
                wrong = [wrong[0] or not _holds(valid, truth), wrong[1] or not _holds(found, truth)]
                looks += 1
            ours, once = ours + wrong[0], once + wrong[1]
        rows.append((name, f"{looks // suites}", f"{ours / suites:.3f}", f"{once / suites:.3f}"))
    return table(("scores", "looks", "always valid", "interval for one look"), rows)


FIGURES = ("r2", "roc_auc", "class_f1")
Drawn = tuple[list[int], list[tuple[list[Any], list[Any]]]]


def simulate_pairs(generator: Any, name: str, documents: int, *, alone: bool) -> Drawn:
    """Return the document of each row, and two runs' truths and predictions, both as good.

    A document has one to 8 questions (`alone`: one). Truth and errors of its questions correlate by 0.4.
    """
    sizes = numpy.ones(documents, int) if alone else generator.integers(1, 9, documents)
    of = numpy.repeat(numpy.arange(documents), sizes)

    def hidden() -> Any:
        common, own = generator.normal(size=documents)[of], generator.normal(size=len(of))
        return math.sqrt(0.4) * common + math.sqrt(0.6) * own

    truth = hidden()
    runs = []
    for _ in range(2):
        said = truth + hidden()
        if name == "r2":
            runs.append((truth.tolist(), (said / 2).tolist()))
        elif name == "roc_auc":
            runs.append(((truth > 0.5).astype(int).tolist(), said.tolist()))
        else:
            runs.append(([str(int(v > 0.5)) for v in truth], [str(int(v > 0.5)) for v in said]))
    return of.tolist(), runs


def figures(suites: int, seed: int) -> str:
    """Return how often intervals of figures over all pairs hold the truth, and two alike runs differ."""
    rows = []
    for name in FIGURES:
        metric: Any = scorer.build(name, {})
        _, runs = simulate_pairs(numpy.random.default_rng(seed), name, 300_000, alone=True)
        truth = metric.value(*runs[0])
        for alone, counts in ((False, (5, 10, 20, 40, 80)), (True, (50, 200))):
            for documents in counts:
                generator = numpy.random.default_rng(seed)
                made = [simulate_pairs(generator, name, documents, alone=alone) for _ in range(suites)]
                rows.append(
                    (name, "alone" if alone else "clustered", f"{documents}", *_rates(metric, made, truth))
                )
    head = ("figure", "rows", "documents", "no interval", "ours", "percentiles", "DeLong", "told apart (5 %)")
    return table(head, rows)


def _rates(metric: Any, made: list[Drawn], truth: float) -> tuple[str, ...]:
    ours = percentiles = delong = known = apart = compared = 0
    unclustered = len(made[0][0]) == len(set(made[0][0]))
    for of, (first, second) in made:
        try:
            found = estimate.bootstrap(metric.value, *first, of, weighted=metric.weighted)
        except ValueError:
            continue
        if found.low is None:
            continue
        known += 1
        ours += _holds(found, truth)
        drawn = estimate.draws([(metric.weighted(*first), of)], numpy.random.default_rng(0), 1000)
        low, high = numpy.quantile(drawn, [0.025, 0.975])
        percentiles += low <= truth <= high
        delong += unclustered and metric.name == "roc_auc" and _delong(*first, truth)
        runs = [
            {f"{at}": [pair] for at, pair in enumerate(zip(*run, strict=True))} for run in (first, second)
        ]
        clusters: dict[str, Hashable] = {f"{at}": document for at, document in enumerate(of)}
        told = paired.figures_apart(metric.value, runs[0], runs[1], clusters, weighted=metric.weighted)
        if told.low is not None:
            compared += 1
            apart += not _holds(told, 0.0)
    by_delong = f"{delong / known:.3f}" if unclustered and metric.name == "roc_auc" else "-"
    shares = (f"{count / known:.3f}" for count in (ours, percentiles))
    return (f"{1 - known / len(made):.3f}", *shares, by_delong, f"{apart / compared:.3f}")


def _delong(truths: list[int], scores: list[float], truth: float) -> bool:
    """Say whether DeLong's interval (1988) of the area under the ROC curve holds the truth."""
    right, said = numpy.array(truths) == 1, numpy.array(scores)
    positive, negative = said[right], said[~right]
    above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    if min(above.shape) < 2:
        return False
    parts = above.mean(axis=1).var(ddof=1) / len(positive), above.mean(axis=0).var(ddof=1) / len(negative)
    return bool(abs(above.mean() - truth) <= _NORMAL.inv_cdf(0.975) * math.sqrt(sum(parts)))


def _truth(scale: Scale) -> float:
    """Return the mean score over all that hidden quality may be, noise included."""
    spread = math.sqrt(1 + 0.3**2)
    steps = 20_000
    return math.fsum(scale(spread * _NORMAL.inv_cdf((step + 0.5) / steps)) for step in range(steps)) / steps


def _holds(found: estimate.Estimate, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def main() -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.suites:,} suites, seed {given.seed}\n\nThe 95 % interval holds the true mean:\n")
    print(coverage(given.suites, given.seed))
    print("\nThe same with 5 to 10 documents of very different lengths, heavy tails:\n")
    print(coverage_few(given.suites, given.seed))
    print("\nAnd of the suites that the method was chosen on, lognormal lengths and Beta-binomial scores:\n")
    print(coverage_third(given.suites, given.seed))
    print(f"\nIntervals of figures over all pairs hold the truth ({given.suites // 5:,} suites):\n")
    print(figures(given.suites // 5, given.seed))
    print("\nWrong at one look at least, of a look after every fifth of 100 documents (goal: 5 %):\n")
    print(peeking(given.suites // 2, given.seed))
    print("\nThe second run is called worse (two-sided 5 %, so 2.5 % where nothing has changed):\n")
    print(alarms(given.suites, given.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
