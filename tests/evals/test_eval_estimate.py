"""Intervals agree with the reference formulas, and cover the truth as often as they say."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Sequence

import pytest

from trilith_evals import estimate

Suite = tuple[list[float], list[int] | None]


def test_a_mean_of_scores_has_students_interval() -> None:
    stats = importlib.import_module("scipy.stats")
    values = [0.2, 0.4, 0.5, 0.9, 0.35]
    found = estimate.mean(values)
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 4, loc=sum(values) / 5, scale=stats.sem(values))
    )


def test_zeros_and_ones_have_wilsons_interval() -> None:
    stats = importlib.import_module("scipy.stats")
    found = estimate.mean([1.0] * 9 + [0.0] * 3)
    reference = stats.binomtest(9, 12).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high))


def test_twelve_of_twelve_is_not_certainty() -> None:
    found = estimate.mean([1.0] * 12)
    assert found.low is not None
    assert found.low < 0.8


def test_one_score_has_no_interval() -> None:
    found = estimate.mean([0.7])
    assert (found.value, found.low, found.high) == (0.7, None, None)


def test_repeating_every_case_does_not_narrow_the_interval() -> None:
    values = [0.1, 0.5, 0.6, 0.8, 0.3]
    once, thrice = estimate.mean(values), estimate.mean(values * 3, clusters=list(range(5)) * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))
    assert thrice.clusters == 5


@pytest.mark.parametrize("seed", range(6))
def test_the_clustered_error_is_cr2_with_satterthwaites_degrees(seed: int) -> None:
    """As their papers define both, with matrices, for a regression on a constant."""
    numpy, stats = importlib.import_module("numpy"), importlib.import_module("scipy.stats")
    generator = random.Random(seed)
    sizes = [generator.randint(1, 6) for _ in range(generator.randint(3, 9))]
    clusters = [at for at, size in enumerate(sizes) for _ in range(size)]
    values = [clusters[at] * 0.1 + generator.gauss(0, 0.2) for at in range(len(clusters))]
    n = len(values)
    x, y = numpy.ones((n, 1)), numpy.array(values)
    hat = x @ x.T / n
    residuals = y - hat @ y
    groups = [[v for v, c in zip(values, clusters, strict=True) if c == one] for one in range(len(sizes))]
    share = estimate.correlation(groups, sum(values) / n)
    same = numpy.equal.outer(clusters, clusters)
    working = numpy.where(same, share, 0.0) + numpy.eye(n) * (1 - share)
    columns, variance = [], 0.0
    for one in range(len(sizes)):
        rows = numpy.flatnonzero(numpy.array(clusters) == one)
        eigenvalues, vectors = numpy.linalg.eigh(numpy.eye(len(rows)) - hat[numpy.ix_(rows, rows)])
        adjust = vectors @ numpy.diag(eigenvalues**-0.5) @ vectors.T
        variance += float((x[rows].T @ adjust @ residuals[rows])[0] ** 2) / n**2
        columns.append(((numpy.eye(n) - hat)[:, rows] @ adjust @ x[rows] / n)[:, 0])
    inner = numpy.array(columns) @ working @ numpy.array(columns).T
    degrees = numpy.trace(inner) ** 2 / (inner**2).sum()
    found = estimate.mean(values, clusters)
    assert found.high is not None
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, degrees) * math.sqrt(variance))


def _clustered(generator: random.Random, *, binary: bool) -> Suite:
    values, clusters = [], []
    for cluster in range(20):
        centre = 0.5 + generator.gauss(0, 0.2)
        for _ in range(generator.randint(1, 8)):
            certain = generator.gauss(centre, 0.2)
            values.append(float(generator.random() < centre) if binary else certain)
            clusters.append(cluster)
    return values, clusters


SUITES: dict[str, tuple[Callable[[random.Random], Suite], float]] = {
    "12 scores": (lambda g: ([g.gauss(0.5, 0.2) for _ in range(12)], None), 0.5),
    "50 zeros and ones": (lambda g: ([float(g.random() < 0.8) for _ in range(50)], None), 0.8),
    "20 clusters of scores": (lambda g: _clustered(g, binary=False), 0.5),
    "20 clusters of zeros and ones": (lambda g: _clustered(g, binary=True), 0.5),
}


@pytest.mark.parametrize("kind", SUITES)
def test_the_interval_covers_the_truth_in_about_95_of_100_simulated_suites(kind: str) -> None:
    make, truth = SUITES[kind]
    covered = 0
    for seed in range(600):
        found = estimate.mean(*make(random.Random(seed)))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    # 600 draws tell 95 % with a standard error of 0.9 points.
    assert 0.92 <= covered / 600 <= 0.98


def test_a_share_of_clusters_is_worth_no_more_than_its_rows_and_less_where_they_are_alike() -> None:
    apart = [[1.0, 0.0]] * 6
    alike = [[1.0, 1.0], [0.0, 0.0]] * 3
    assert estimate.independent([[1.0], [0.0], [1.0]]) == 3
    assert estimate.independent(apart) == 6  # no spread between clusters says nothing
    assert estimate.independent(alike) < 6
    assert estimate.independent([[1.0] * 4] * 5) == 5


def test_the_naive_interval_would_cover_far_less() -> None:
    covered = 0
    for seed in range(300):
        values, _ = _clustered(random.Random(seed), binary=False)
        found = estimate.mean(values)
        covered += found.low is not None and found.high is not None and found.low <= 0.5 <= found.high
    assert covered / 300 < 0.85


def _mae(truths: Sequence[float], predictions: Sequence[float]) -> float:
    return sum(abs(t - p) for t, p in zip(truths, predictions, strict=True)) / len(truths)


def test_the_bootstrap_agrees_with_scipys() -> None:
    stats, numpy = importlib.import_module("scipy.stats"), importlib.import_module("numpy")
    generator = random.Random(4)
    errors = [abs(generator.gauss(0, 1)) for _ in range(80)]
    found = estimate.bootstrap(_mae, errors, [0.0] * 80)
    reference = stats.bootstrap(
        (errors,), numpy.mean, method="percentile", rng=numpy.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.02)


def test_the_bootstrap_gives_the_same_interval_every_time() -> None:
    truths, predictions = [1.0, 2.0, 3.0, 9.0], [1.0, 2.5, 2.0, 7.0]
    first, second = (estimate.bootstrap(_mae, truths, predictions) for _ in range(2))
    assert first == second


def test_the_bootstrap_draws_whole_clusters() -> None:
    truths = [0.0] * 12 + [5.0] * 12
    apart = estimate.bootstrap(_mae, truths, [0.0] * 24)
    together = estimate.bootstrap(_mae, truths, [0.0] * 24, clusters=[at // 12 for at in range(24)])
    assert (together.low, together.high) == (0, 5)
    assert apart.low is not None
    assert apart.low > 0


def test_with_few_clusters_the_bootstrap_reaches_as_much_further_as_students_t() -> None:
    """Of many draws of a mean, about normal: the reach is t times the corrected standard error."""
    stats = importlib.import_module("scipy.stats")
    generator = random.Random(3)
    errors = [abs(generator.gauss(5, 1)) for _ in range(12)]
    found = estimate.bootstrap(_mae, errors, [0.0] * 12, resamples=20_000)
    error = stats.sem(errors)
    assert found.error == pytest.approx(error, rel=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 11) * error, rel=0.08)
