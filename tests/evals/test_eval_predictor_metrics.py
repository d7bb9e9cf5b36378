"""Figures of predictors: equal to scikit-learn's, the same with weights, and undefined without a crash."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
from sklearn import metrics

import trilith_evals
from trilith.errors import SettingsError
from trilith_evals import Case, Output, estimate, scorer

SEED = random.Random(5)
TRUTH = [int(SEED.random() < 0.4) for _ in range(120)]
CHANCE = [round(min(1, max(0, 0.3 * t + 0.7 * SEED.random())), 2) for t in TRUTH]
NAMES = [SEED.choice("abc") for _ in range(120)]
SAID = [name if SEED.random() < 0.6 else SEED.choice("abc") for name in NAMES]
SIZES = [SEED.uniform(1, 9) for _ in range(120)]
GUESSES = [size + SEED.gauss(0, 1) for size in SIZES]
CLUSTERS = [i // 6 for i in range(120)]


def made(name: str, **params: Any) -> Any:
    return scorer.build(name, params)


@pytest.mark.parametrize(
    ("metric", "truths", "predictions", "expected"),
    [
        (made("pr_auc"), TRUTH, CHANCE, metrics.average_precision_score(TRUTH, CHANCE)),
        (made("log_loss"), TRUTH, CHANCE, metrics.log_loss(TRUTH, CHANCE)),
        (made("brier"), TRUTH, CHANCE, metrics.brier_score_loss(TRUTH, CHANCE)),
        (made("class_f1"), NAMES, SAID, metrics.f1_score(NAMES, SAID, average="macro")),
        (made("class_f1", average="micro"), NAMES, SAID, metrics.f1_score(NAMES, SAID, average="micro")),
        (
            made("class_precision", average="weighted"),
            NAMES,
            SAID,
            metrics.precision_score(NAMES, SAID, average="weighted"),
        ),
        (
            made("class_recall", label="b"),
            NAMES,
            SAID,
            metrics.recall_score(NAMES, SAID, labels=["b"], average="macro"),
        ),
        (made("mcc"), NAMES, SAID, metrics.matthews_corrcoef(NAMES, SAID)),
        (made("balanced_accuracy"), NAMES, SAID, metrics.balanced_accuracy_score(NAMES, SAID)),
        (made("mape"), SIZES, GUESSES, metrics.mean_absolute_percentage_error(SIZES, GUESSES)),
        (made("medae"), SIZES, GUESSES, metrics.median_absolute_error(SIZES, GUESSES)),
        (
            made("pinball", quantile=0.9),
            SIZES,
            GUESSES,
            metrics.mean_pinball_loss(SIZES, GUESSES, alpha=0.9),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_figure_is_scikit_learns(metric: Any, truths: Any, predictions: Any, expected: float) -> None:
    assert metric.value(truths, predictions) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "truths", "predictions"),
    [
        *((made(name), TRUTH, CHANCE) for name in ("roc_auc", "pr_auc", "log_loss", "brier")),
        (made("calibration_slope"), TRUTH, [min(0.99, max(0.01, c)) for c in CHANCE]),
        *(
            (made(name), NAMES, SAID)
            for name in ("accuracy", "class_f1", "class_precision", "mcc", "balanced_accuracy")
        ),
        *(
            (made(name), SIZES, GUESSES)
            for name in ("mae", "rmse", "r2", "medae", "mape", "smape", "pinball")
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_fast_bootstrap_gives_the_slow_ones_interval(metric: Any, truths: Any, predictions: Any) -> None:
    slow = estimate.bootstrap(metric.value, truths, predictions, CLUSTERS, resamples=60)
    fast = estimate.bootstrap(
        metric.value, truths, predictions, CLUSTERS, resamples=60, weighted=metric.weighted
    )
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))


def test_resamples_whose_truths_are_all_the_same_are_left_out_of_r2_fast_and_slow() -> None:
    truths, guesses, r2 = [1e6] * 5 + [1e6 + 1], [1e6, 1e6, 1e6 + 1, 1e6, 1e6, 1e6 + 1], made("r2")
    weigh, weights = r2.weighted(truths, guesses), [[1, 0, 2, 0, 0, 0], [1, 1, 1, 0, 0, 1]]
    constant, other = (float(found) for found in weigh(numpy.array(weights, float)))
    assert constant != constant
    assert other == pytest.approx(metrics.r2_score([1e6, 1e6, 1e6, 1e6 + 1], [1e6, 1e6, 1e6 + 1, 1e6 + 1]))


@pytest.mark.parametrize(
    "times", [[1, 0, 2, 1, 0, 3], [1, 0, 2, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0]]
)
def test_the_median_error_of_weights_is_that_of_rows_so_often(times: list[int]) -> None:
    truths, drawn = [5.0, 1, 4, 2, 8, 3], []
    for truth, n in zip(truths, times, strict=True):
        drawn += [truth] * n
    (found,) = made("medae").weighted(truths, [0.0] * 6)(numpy.array([times], float))
    assert found == metrics.median_absolute_error(drawn, [0.0] * len(drawn))


def test_a_smape_of_zero_against_zero_is_no_error() -> None:
    assert made("smape").value([0, 2], [0, 1]) == pytest.approx((0 + 1 / 1.5) / 2)


def test_honest_probabilities_have_slope_one_and_no_calibration_error() -> None:
    rng = random.Random(2)
    said = [rng.uniform(0.02, 0.98) for _ in range(20_000)]
    truth = [int(rng.random() < p) for p in said]
    assert made("calibration_slope").value(truth, said) == pytest.approx(1, abs=0.06)
    assert made("calibration_intercept").value(truth, said) == pytest.approx(0, abs=0.06)
    assert made("calibration_error").value(truth, said) < 0.012


def test_too_sure_probabilities_have_a_slope_below_one_and_a_calibration_error() -> None:
    rng = random.Random(3)
    odds = [rng.gauss(0, 1) for _ in range(5_000)]
    truth = [int(rng.random() < 1 / (1 + 2.718281828**-x)) for x in odds]
    said = [1 / (1 + 2.718281828 ** (-2 * x)) for x in odds]
    assert made("calibration_slope").value(truth, said) == pytest.approx(0.5, abs=0.06)
    assert made("calibration_error").value(truth, said) > 0.08


@pytest.mark.parametrize(
    ("metric", "truths", "predictions", "problem"),
    [
        (made("pr_auc"), [0, 0], [0.1, 0.2], "without a positive"),
        (made("mcc"), ["a", "a"], ["a", "b"], "one class"),
        (made("balanced_accuracy"), ["a", "a"], ["a", "b"], "two expected classes"),
        (made("class_f1", label="z"), ["a"], ["a"], "no row has the class"),
        (made("mape"), [0.0, 1.0], [1.0, 1.0], "expected value is 0"),
        (made("calibration_slope"), [0, 1], [0.1, 0.9], "no logistic line"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_undefined_figure_says_why(metric: Any, truths: Any, predictions: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        metric.value(truths, predictions)


def test_labels_from_a_csv_equal_a_predictors_numbers_and_booleans() -> None:
    metric = made("class_f1")
    for written, said in (("1", 1.0), ("1", True), (1, "1"), ("yes", "yes")):
        truth, predicted = metric.pair(Case("1", {}, written), Output(values={"label": said}))
        assert truth == predicted


def test_a_score_that_is_no_probability_is_an_unscored_row() -> None:
    with pytest.raises(ValueError, match="no probability"):
        made("brier").pair(Case("1", {}, 1), Output(values={"p": 1.7}))


def _people(**groups: tuple[int, int, int, int]) -> tuple[list[tuple[str, str]], list[str]]:
    """Rows by group: true positives, false negatives, false positives, true negatives."""
    truths, predictions = [], []
    for group, counts in groups.items():
        for (truth, said), count in zip(
            (("1", "1"), ("1", "0"), ("0", "1"), ("0", "0")), counts, strict=True
        ):
            truths += [(group, truth)] * count
            predictions += [said] * count
    return truths, predictions


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("parity_gap", 0.5 - 0.25),  # a selects 50 of 100, b 25 of 100
        ("parity_ratio", 0.25 / 0.5),
        ("opportunity_gap", 40 / 50 - 20 / 40),
        ("odds_gap", 40 / 50 - 20 / 40),  # false positives: 10/50 against 5/60
        ("worst_group_accuracy", (20 + 55) / 100),  # a: 80 of 100
    ],
)
def test_a_gap_is_what_the_counts_say(name: str, expected: float) -> None:
    truths, predictions = _people(a=(40, 10, 10, 40), b=(20, 20, 5, 55))
    assert made(name, by="g").value(truths, predictions) == pytest.approx(expected)


def test_a_group_that_is_too_small_leaves_the_gap_undefined_and_is_named() -> None:
    metric = made("opportunity_gap", by="g")
    with pytest.raises(ValueError, match="g=b has 9 rows"):
        metric.value(*_people(a=(40, 10, 10, 40), b=(3, 2, 2, 2)))
    with pytest.raises(ValueError, match="g=b the rate is a share of 5 rows only"):
        metric.value(*_people(a=(40, 10, 10, 40), b=(3, 2, 20, 20)))


def test_a_gap_needs_a_tag() -> None:
    with pytest.raises(SettingsError, match="by is missing"):
        made("parity_gap")
    with pytest.raises(ValueError, match="no tag 'g'"):
        made("parity_gap", by="g").pair(Case("1", {}, 1), Output(values={"y": 1}))


def test_a_gap_over_a_suite_has_an_interval() -> None:
    truths, predictions = _people(a=(40, 10, 10, 40), b=(20, 20, 5, 55))
    cases = [
        Case(str(i), said, truth, tags={"g": group})
        for i, ((group, truth), said) in enumerate(zip(truths, predictions, strict=True))
    ]
    metric = made("parity_gap", by="g")
    pairs = [metric.pair(case, Output(values={"y": case.input})) for case in cases]
    found = estimate.bootstrap(metric.value, *map(list, zip(*pairs, strict=True)), weighted=metric.weighted)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 0.25 < found.high < 0.45


def test_they_run_by_name_over_a_suite() -> None:
    rows = [{"input": c, "expected": t, "id": i} for i, (t, c) in enumerate(zip(TRUTH, CHANCE, strict=True))]
    report = trilith_evals.run(float, rows, ["roc_auc", "pr_auc", "brier", "calibration_error"])
    assert all(f.estimate is not None and f.estimate.low is not None for f in report.suites[0].figures)
