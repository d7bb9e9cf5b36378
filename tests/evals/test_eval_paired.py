"""What pairs can say where t cannot, held against the reference tests."""

from __future__ import annotations

import importlib
import random

import pytest

from trilith_evals import paired, scorer
from trilith_evals.comparison import Verdict, benjamini_hochberg, compare


@pytest.mark.parametrize(("gained", "lost"), [(4, 0), (5, 1), (6, 0), (3, 3), (9, 2)])
def test_for_right_and_wrong_the_sign_flip_is_mcnemars_exact_test(gained: int, lost: int) -> None:
    stats = importlib.import_module("scipy.stats")
    expected = stats.binomtest(min(gained, lost), gained + lost).pvalue
    assert paired.sign_flip([1.0] * gained + [-1.0] * lost) == pytest.approx(expected)
    assert paired.even_odds(gained, gained + lost) == pytest.approx(expected)


def test_tangos_interval_is_that_of_his_paper() -> None:
    """Without a pair that differs it is z²/(n + z²); else the score test, by search."""
    assert paired.tango(0, 0, 50, 0.05) == pytest.approx((-0.0713, 0.0713), abs=1e-4)
    low, high = paired.tango(9, 2, 100, 0.05)
    numpy = importlib.import_module("numpy")
    for true in (low, high):  # the profile likelihood's share, by search
        share = numpy.linspace(
            max(0.0, -true) + 1e-9, (1 - abs(true)) / 1 if true < 0 else 1 - true - 1e-9, 400_001
        )
        gained, same = share + true, 1 - 2 * share - true
        held = (gained > 0) & (same > 0)
        likely = 9 * numpy.log(gained[held]) + 2 * numpy.log(share[held]) + 89 * numpy.log(same[held])
        lost = share[held][likely.argmax()]
        z = (7 - 100 * true) / numpy.sqrt(100 * (2 * lost + true - true**2))
        assert abs(z) == pytest.approx(1.96, abs=0.001)


def pairs(n: int, gained: int, lost: int) -> tuple[dict[str, float], dict[str, float]]:
    old = {str(at): float(at < lost) for at in range(n)}
    new = {str(at): float(lost <= at < lost + gained) for at in range(n)}
    return old, new


def test_four_of_a_hundred_on_one_side_are_no_evidence_though_t_says_so() -> None:
    """Student's t has p 0.045 there, chance 1 in 8."""
    found = compare(*pairs(100, 4, 0))
    assert (found.verdict, found.p) == (Verdict.NO_EVIDENCE, 0.125)
    assert found.difference.method == "score interval of pairs"
    assert compare(*pairs(100, 6, 0)).verdict is Verdict.BETTER


def test_two_gates_of_one_figure_are_apart_as_their_bootstrap_says() -> None:
    rng = random.Random(1)
    truth = {str(at): rng.gauss(0, 1) for at in range(120)}
    old = {case: [(value, value + rng.gauss(0, 0.5))] for case, value in truth.items()}
    new = {case: [(value, value + rng.gauss(0, 0.5))] for case, value in truth.items()}

    def mean_error(truths: list[float], predictions: list[float]) -> float:
        return sum(abs(t - p) for t, p in zip(truths, predictions, strict=True)) / len(truths)

    found = paired.figures_apart(mean_error, old, new, {})  # type: ignore[arg-type]
    losses = [{case: abs(t - p) for case, [(t, p)] in run.items()} for run in (old, new)]
    reference = compare(losses[0], losses[1]).difference
    assert found.value == pytest.approx(reference.value)
    assert found.error == pytest.approx(reference.error, rel=0.1)


def test_the_fast_bootstrap_of_a_difference_is_the_slow_one_with_clusters_and_repeats() -> None:
    rng, auc = random.Random(2), scorer.build("roc_auc", {})
    of = {str(at): at // 3 for at in range(60)}
    truth = {case: int(rng.random() < 0.4) for case in of}
    old, new = (
        {
            case: [(t, round(t + rng.gauss(0, noise), 1)) for _ in range(1 + rng.randrange(2))]
            for case, t in truth.items()
        }
        for noise in (0.7, 0.9)
    )
    slow, fast = (
        paired.figures_apart(auc.value, old, new, of, resamples=50, weighted=weighted)  # type: ignore[union-attr]
        for weighted in (None, auc.weighted)  # type: ignore[union-attr]
    )
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))
    assert fast.method == slow.method == "paired cluster bootstrap"


def test_benjamini_and_hochbergs_adjustment_is_scipys() -> None:
    stats = importlib.import_module("scipy.stats")
    ps = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert benjamini_hochberg(ps) == pytest.approx(list(stats.false_discovery_control(ps)))
