"""Do the intervals cover the truth as often as they say, and how often does a comparison cry wolf?

`python -m bench.evals.statistics [--suites 2000] [--seed 1]` simulates suites whose truth is known: 10 to 60
documents with one to 30 questions each, the questions of a document more or less alike. Beside our rule stand
the ones in use: an interval that takes every question for a case of its own, and the bare difference of two
means.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from bench.gateway.report import table

from trilith_evals import estimate, sequence
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


def _truth(scale: Scale) -> float:
    """Return the mean score over all that hidden quality may be, noise included."""
    spread = math.sqrt(1 + 0.3**2)
    steps = 20_000
    return math.fsum(scale(spread * _NORMAL.inv_cdf((step + 0.5) / steps)) for step in range(steps)) / steps


def _holds(found: estimate.Estimate, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suites", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.suites:,} suites, seed {given.seed}\n\nThe 95 % interval holds the true mean:\n")
    print(coverage(given.suites, given.seed))
    print("\nThe same with 5 to 10 documents of very different lengths, heavy tails:\n")
    print(coverage_few(given.suites, given.seed))
    print("\nWrong at one look at least, of a look after every fifth of 100 documents (goal: 5 %):\n")
    print(peeking(given.suites // 2, given.seed))
    print("\nThe second run is called worse (two-sided 5 %, so 2.5 % where nothing has changed):\n")
    print(alarms(given.suites, given.seed))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
