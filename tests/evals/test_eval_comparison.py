"""Two runs of the same cases: paired, clustered, and with a verdict that needs evidence."""

from __future__ import annotations

import importlib
import random

import pytest
from bench.evals.statistics import SCALES, simulate

from trilith_evals import comparison
from trilith_evals.comparison import Verdict, compare

OLD = {f"q{at}": value for at, value in enumerate([0.2, 0.4, 0.5, 0.9, 0.35, 0.6, 0.7, 0.1])}
NEW = {f"q{at}": value for at, value in enumerate([0.3, 0.5, 0.55, 0.95, 0.5, 0.65, 0.8, 0.25])}


def test_without_clusters_it_is_the_paired_t_test() -> None:
    stats = importlib.import_module("scipy.stats")
    reference = stats.ttest_rel(list(NEW.values()), list(OLD.values()))
    found, interval = compare(OLD, NEW), reference.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.verdict, found.difference.method, found.unpaired) == (Verdict.BETTER, "paired t", 0)


def test_the_other_way_round_it_is_worse_and_so_it_is_where_less_is_better() -> None:
    assert compare(NEW, OLD).verdict is Verdict.WORSE
    assert compare(OLD, NEW, higher_is_better=False).verdict is Verdict.WORSE


def test_a_margin_excuses_what_is_not_surely_beyond_it() -> None:
    assert compare(NEW, OLD, margin=0.1).verdict is Verdict.NO_EVIDENCE
    assert compare(NEW, OLD, margin=0.01).verdict is Verdict.WORSE


def test_cases_of_one_document_count_once() -> None:
    document = {case: "one" if at < 6 else "another" for at, case in enumerate(OLD)}
    only_one = {case: score + 0.2 * (document[case] == "one") for case, score in OLD.items()}
    assert compare(OLD, only_one).verdict is Verdict.BETTER
    found = compare(OLD, only_one, document)
    assert (found.verdict, found.difference.clusters) == (Verdict.NO_EVIDENCE, 2)


def test_only_cases_of_both_runs_count_and_the_others_are_told() -> None:
    found = compare({**OLD, "gone": 1.0}, {**NEW, "new": 0.0})
    assert (found.difference.n, found.unpaired) == (len(OLD), 2)
    with pytest.raises(ValueError, match="no case is scored in both"):
        compare({"a": 1.0}, {"b": 1.0})


@pytest.mark.parametrize(("count", "verdict"), [(5, Verdict.NO_EVIDENCE), (6, Verdict.BETTER)])
def test_a_few_equal_differences_are_no_certainty(count: int, verdict: Verdict) -> None:
    """Five of five on the same side have a chance of 1 in 16, six of six of 1 in 32."""
    old = {str(at): 0.0 for at in range(count)}
    assert compare(old, dict.fromkeys(old, 1.0)).verdict is verdict


def test_two_equal_runs_are_told_apart_by_nothing() -> None:
    found = compare(OLD, OLD)
    assert (found.verdict, found.p, found.difference.value) == (Verdict.NO_EVIDENCE, 1.0, 0.0)


def test_one_pair_says_nothing() -> None:
    found = compare({"a": 0.0}, {"a": 1.0})
    assert (found.verdict, found.p, found.difference.low) == (Verdict.NO_EVIDENCE, None, None)


@pytest.mark.parametrize("parameters", [{"alpha": 0.0}, {"power": 1.0}, {"margin": -0.1}])
def test_a_parameter_out_of_its_range_is_refused(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="alpha and power"):
        compare(OLD, NEW, **parameters)  # type: ignore[arg-type]


def test_an_unchanged_model_is_seldom_called_worse_and_so_many_cases_as_are_needed_show_a_change() -> None:
    rng = random.Random(3)
    scale = SCALES["graded"][0]
    alarms = sum(_compared(rng, 0.0).verdict is Verdict.WORSE for _ in range(400))
    assert alarms / 400 < 0.05  # 2.5 % with a standard error of 0.8 points
    needed = sorted(found for _ in range(200) if (found := _compared(rng, -0.2).cases_needed) is not None)
    assert 15 < needed[len(needed) // 2] < 80
    assert sum(simulate(rng, scale).first) > 0


def _compared(rng: random.Random, better: float) -> comparison.Comparison:
    made = simulate(rng, SCALES["graded"][0], better)
    cases = [str(at) for at in range(len(made.first))]
    old, new = dict(zip(cases, made.first, strict=True)), dict(zip(cases, made.second, strict=True))
    return compare(old, new, dict(zip(cases, made.documents, strict=True)))


def test_holms_adjustment_is_that_of_statsmodels_example() -> None:
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert comparison.holm([]) == []
    assert comparison.holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("successes", "tries", "k", "chance"), [(1, 4, 1, 0.25), (1, 4, 4, 1.0), (2, 4, 2, 5 / 6), (0, 9, 3, 0.0)]
)
def test_pass_at_k_is_the_share_of_draws_with_a_success(
    successes: int, tries: int, k: int, chance: float
) -> None:
    assert comparison.pass_at_k(successes, tries, k) == pytest.approx(chance)


def test_pass_at_k_needs_k_tries() -> None:
    with pytest.raises(ValueError, match="tell nothing"):
        comparison.pass_at_k(1, 2, 3)
