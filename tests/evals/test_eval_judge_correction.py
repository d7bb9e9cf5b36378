"""Corrected figures hold what people would say; the judge's own mean does not."""

from __future__ import annotations

import random
from statistics import NormalDist

import pytest

from trilith_evals.judging.correction import ppi_difference, ppi_mean, rogan_gladen


def drawn(
    rng: random.Random, rows: int, labelled: int, *, hit: float = 0.9, false: float = 0.4
) -> tuple[list[float | None], list[float]]:
    """Rows of which 30 % are good; a judge that passes `hit` of these and `false` of the others."""
    truths = [float(rng.random() < 0.3) for _ in range(rows)]
    verdicts = [float(rng.random() < (hit if truth else false)) for truth in truths]
    return [truth if at < labelled else None for at, truth in enumerate(truths)], verdicts


def test_the_value_is_the_published_estimator() -> None:
    labels, verdicts = drawn(random.Random(1), 400, 80)
    found = ppi_mean(labels, verdicts)
    truth = [label for label in labels if label is not None]
    here, rest = verdicts[:80], verdicts[80:]
    middle, seen = sum(truth) / 80, sum(here) / 80
    covariance = sum((t - middle) * (v - seen) for t, v in zip(truth, here, strict=True)) / 79
    own, other = (sum((v - sum(p) / len(p)) ** 2 for v in p) / (len(p) - 1) for p in (here, rest))
    weight = (covariance / 80) / (own / 80 + other / 320)
    assert found.weight == pytest.approx(weight)
    assert found.estimate.value == pytest.approx(middle + weight * (sum(rest) / 320 - seen))
    left = [t - weight * v for t, v in zip(truth, here, strict=True)]
    variance = sum((v - sum(left) / 80) ** 2 for v in left) / 79 / 80 + weight**2 * other / 320
    assert found.estimate.high is not None
    reach = found.estimate.high - found.estimate.value
    assert reach == pytest.approx(NormalDist().inv_cdf(0.975) * variance**0.5, rel=0.03)  # Student's is wider


def test_the_interval_holds_the_truth_at_the_stated_rate_where_the_judges_own_does_not() -> None:
    rng, held, own = random.Random(7), 0, 0
    for _ in range(300):
        found = ppi_mean(*drawn(rng, 300, 60), bounds=(0, 1))
        assert found.estimate.low is not None
        assert found.estimate.high is not None
        assert found.judge.low is not None
        held += found.estimate.low <= 0.3 <= found.estimate.high
        own += found.judge.low <= 0.3
    assert 0.91 <= held / 300 <= 0.99
    assert own == 0


def test_rows_of_one_cluster_on_both_sides_are_not_taken_for_independent() -> None:
    rng, held, alone = random.Random(9), 0, 0
    for _ in range(300):
        labels: list[float | None] = []
        verdicts, clusters = [], []
        for document in range(40):
            common = rng.gauss(0, 1)
            for at in range(8):
                quality = common + rng.gauss(0, 0.3)
                labels.append(quality if at < 2 else None)
                verdicts.append(quality + 0.5 + rng.gauss(0, 0.3))
                clusters.append(document)
        for of in (clusters, None):
            found = ppi_mean(labels, verdicts, of).estimate
            assert found.low is not None
            assert found.high is not None
            holds = found.low <= 0 <= found.high
            held += holds and of is not None
            alone += holds and of is None
    assert 0.91 <= held / 300 <= 0.99
    assert alone / 300 < 0.85


def test_few_labels_that_all_agree_do_not_make_the_judge_infallible() -> None:
    verdicts = [1.0, 0.0] * 2000
    found = ppi_mean([*verdicts[:12], *[None] * 3988], verdicts, bounds=(0, 1))
    assert found.estimate.low is not None
    assert found.estimate.high is not None
    assert found.estimate.high - found.estimate.low > 0.2


def test_made_up_disagreement_does_not_drown_a_judge_of_many_steps() -> None:
    rng = random.Random(4)
    truth = [float(rng.randint(1, 5)) for _ in range(620)]
    verdicts = [min(5.0, max(1.0, value + rng.choice((-1, 0, 0, 1)))) for value in truth]
    found = ppi_mean([*truth[:20], *[None] * 600], verdicts, bounds=(1, 5))
    assert found.weight > 0.7
    agreed = ppi_mean([*verdicts[:20], *[None] * 600], verdicts, bounds=(1, 5))
    assert agreed.estimate.low is not None
    assert agreed.estimate.high is not None
    assert agreed.estimate.high - agreed.estimate.low > 0.5


def test_a_judge_worth_nothing_leaves_peoples_labels_as_they_are() -> None:
    rng = random.Random(3)
    labels, _ = drawn(rng, 400, 100)
    found = ppi_mean(labels, [float(rng.random() < 0.9) for _ in labels], bounds=(0, 1))
    assert found.weight < 0.3
    assert found.estimate.value == pytest.approx(found.people.value, abs=0.03)


def test_a_good_judge_is_worth_many_labels() -> None:
    found = ppi_mean(*drawn(random.Random(5), 2000, 100, hit=0.97, false=0.03), bounds=(0, 1))
    assert found.worth is not None
    assert found.worth > 200


def test_an_error_on_both_sides_alike_drops_out_of_a_difference() -> None:
    rng = random.Random(6)
    first = [float(rng.random() < 0.5) for _ in range(300)]
    second = [value if rng.random() < 0.8 else 1.0 for value in first]
    wrong = [rng.gauss(0.3, 0.5) for _ in first]
    labels = [[v if at < 40 else None for at, v in enumerate(side)] for side in (first, second)]
    verdicts = [[v + w for v, w in zip(side, wrong, strict=True)] for side in (first, second)]
    found = ppi_difference((labels[0], labels[1]), (verdicts[0], verdicts[1]))
    truth = sum(second) / 300 - sum(first) / 300
    assert found.weight > 0.8
    assert found.estimate.low is not None
    assert found.estimate.high is not None
    assert found.estimate.low <= truth <= found.estimate.high
    assert found.estimate.value == pytest.approx(truth, abs=0.02)


def test_one_label_is_refused() -> None:
    with pytest.raises(ValueError, match="1 rows have people's labels"):
        ppi_mean([1.0, None], [1.0, 1.0])


def test_rogan_and_gladen_find_the_share_also_where_labelled_rows_are_not_like_the_others() -> None:
    rng, held = random.Random(8), 0
    for _ in range(200):
        labels, verdicts = drawn(rng, 600, 0, hit=0.85, false=0.2)
        # Half of the labelled rows are good, of the others three in ten.
        for at in range(80):
            verdicts.append(float(rng.random() < (0.85 if at % 2 else 0.2)))
            labels.append(float(at % 2))
        known = [None if label is None else label == 1 for label in labels]
        found = rogan_gladen(known[600:] + [None] * 600, [v == 1 for v in verdicts[600:] + verdicts[:600]])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= (0.3 * 600 + 40) / 680 <= found.high
    assert held / 200 >= 0.93


def test_an_error_rate_that_few_rows_tell_of_widens_the_interval_where_it_matters() -> None:
    # One answer in ten is good, so what counts is how often the judge passes a bad one.
    def width(good: int, bad: int) -> float:
        labels = [True] * good + [False] * bad
        verdicts = [at % 10 != 0 for at in range(good)] + [at % 10 == 0 for at in range(bad)]
        rest = [at % 100 < 18 for at in range(5000)]
        found = rogan_gladen([*labels, *[None] * 5000], [*verdicts, *rest])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(good=400, bad=20) > 2 * width(good=20, bad=400)


def test_a_judge_no_better_than_a_coin_has_no_such_estimate() -> None:
    assert rogan_gladen([True, True, False, False, None], [True, False, True, False, True]) is None


def test_a_share_near_one_has_the_longer_half_of_its_interval_below_and_ends_within_bounds() -> None:
    labels = [float(at % 10 != 0) for at in range(40)]
    found = ppi_mean([*labels, *[None] * 200], [1.0, 0.0] * 120, bounds=(0, 1)).estimate
    assert found.low is not None
    assert found.high is not None
    assert found.value - found.low > 1.3 * (found.high - found.value)
    assert found.high < 1


def test_labels_that_are_all_yes_leave_room_below_one_and_none_above() -> None:
    found = ppi_mean([*[1.0] * 30, *[None] * 200], [1.0] * 230, bounds=(0, 1)).estimate
    assert found.low is not None
    assert 0.75 < found.low < 0.99
    assert found.high == found.value == 1
