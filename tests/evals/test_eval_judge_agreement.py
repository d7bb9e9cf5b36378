"""Agreement and biases of recorded judges, against independent computations of the same."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, precision_score, recall_score

from trilith_evals import estimate
from trilith_evals.judging import agreement, calibration, pairwise
from trilith_evals.judging.calibration import Judged
from trilith_evals.judging.linear import gap
from trilith_evals.judging.pairwise import JudgedPair

RECORDED = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "judge_verdicts.jsonl").read_text("utf-8").splitlines()
]


def choice(verdict: str | None) -> Any:
    return None if verdict is None else int(verdict)


def recorded(judge: str) -> list[JudgedPair]:
    return [
        JudgedPair(
            id=str(row["id"]),
            gold=row["gold"],
            forward=choice(row["ab"]),
            backward=choice(row["ba"]),
            lengths=tuple(row["lengths"]),
            cluster=str(row["question"]),
        )
        for row in RECORDED
        if row["judge"] == judge
    ]


def test_a_recorded_judges_shares_are_what_counting_gives() -> None:
    rows = [row for row in RECORDED if row["judge"] == "ChatGPT"]
    found = pairwise.calibrate(recorded("ChatGPT"))
    right = [(int(r["ab"]) == r["gold"]) + (int(r["ba"]) == r["gold"]) for r in rows]
    assert found.accuracy.value == pytest.approx(sum(right) / 2 / len(rows))
    assert found.both_right.value == pytest.approx(right.count(2) / len(rows))
    assert found.consistency.value == pytest.approx(mean(r["ab"] == r["ba"] for r in rows))
    assert found.picks_first is not None
    firsts = [(r["ab"] == "1") + (r["ba"] == "2") for r in rows]
    assert found.picks_first.value == pytest.approx(sum(firsts) / 2 / len(rows))
    assert found.picks_first.clusters == len({r["question"] for r in rows})
    assert found.position_bias.low is not None
    assert found.position_bias.low > 0  # it prefers what it reads first


def test_kappa_is_scikit_learns() -> None:
    pairs = recorded("ChatGPT")
    truths = [pair.gold for pair in pairs]
    said = [pair.forward for pair in pairs]
    found = agreement.kappa(truths, said)
    assert found is not None
    assert found.value == pytest.approx(cohen_kappa_score(truths, said))


def test_weighted_kappa_is_scikit_learns() -> None:
    rng = random.Random(3)
    truths = [rng.randint(1, 5) for _ in range(60)]
    said = [min(5, max(1, truth + rng.choice((-2, -1, 0, 0, 1)))) for truth in truths]
    found = agreement.kappa(truths, said, weights="quadratic")
    assert found is not None
    assert found.value == pytest.approx(cohen_kappa_score(truths, said, weights="quadratic"))


def test_kappas_interval_is_about_the_bootstraps() -> None:
    pairs = recorded("ChatGPT")
    truths, said = [pair.gold for pair in pairs], [pair.forward for pair in pairs]
    clusters = [pair.cluster for pair in pairs]
    found = agreement.kappa(truths, said, clusters)
    drawn = estimate.bootstrap(cohen_kappa_score, truths, said, clusters)
    assert found is not None
    assert found.method == "cluster delta"
    assert found.low == pytest.approx(drawn.low, abs=0.06)
    assert found.high == pytest.approx(drawn.high, abs=0.06)


def test_kappas_interval_is_about_the_bootstraps_where_one_answer_is_rare() -> None:
    rng = random.Random(7)
    truths = [rng.random() < 0.1 for _ in range(300)]
    said = [truth if rng.random() < 0.9 else not truth for truth in truths]
    found, drawn = agreement.kappa(truths, said), estimate.bootstrap(cohen_kappa_score, truths, said)
    assert found is not None
    assert found.low == pytest.approx(drawn.low, abs=0.02)
    assert found.high == pytest.approx(drawn.high, abs=0.02)


def test_kappa_of_one_single_answer_is_undefined() -> None:
    assert agreement.kappa([1, 1, 1], [1, 1, 1]) is None


def by_hand(units: list[list[float | None]], *, squared: bool) -> float:
    """Krippendorff's alpha from its definition: over pairs within units, and over all pairs of values."""

    def apart(a: float, b: float) -> float:
        return (a - b) ** 2 if squared else float(a != b)

    kept = [[v for v in unit if v is not None] for unit in units]
    kept = [unit for unit in kept if len(unit) > 1]
    values = [v for unit in kept for v in unit]
    within = sum(2 * apart(a, b) / (len(unit) - 1) for unit in kept for a, b in combinations(unit, 2))
    overall = sum(2 * apart(a, b) for a, b in combinations(values, 2))
    return 1 - (within / len(values)) / (overall / (len(values) * (len(values) - 1)))


# The example of Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section C: four observers.
FOUR = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ],
    dtype=object,
).T.tolist()


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("interval", 0.849)])
def test_alpha_is_the_published_one_and_that_of_its_definition(level: str, published: float) -> None:
    found = agreement.alpha(FOUR, level=level)  # type: ignore[arg-type]  # a Literal by way of parametrize
    assert found is not None
    assert found.value == pytest.approx(published, abs=0.001)
    assert found.value == pytest.approx(by_hand(FOUR, squared=level == "interval"))


def test_alphas_interval_is_about_the_bootstraps() -> None:
    rng = random.Random(5)
    units = [[float(rng.random() < chance) for _ in range(3)] for chance in [0.02] * 150 + [0.8] * 20]
    found = agreement.alpha(units)
    drawn = estimate.bootstrap(
        lambda rows, _: by_hand(list(rows), squared=False), units, units, resamples=200
    )
    assert found is not None
    assert found.low == pytest.approx(drawn.low, abs=0.04)
    assert found.high == pytest.approx(drawn.high, abs=0.04)


def test_a_verdict_that_could_not_be_read_counts_against_the_judge() -> None:
    found = pairwise.calibrate(recorded("PaLM2"))
    read = [row for row in RECORDED if row["judge"] == "PaLM2" and row["ab"] and row["ba"]]
    right = sum((int(r["ab"]) == r["gold"]) + (int(r["ba"]) == r["gold"]) for r in read)
    assert found.unread > 0
    assert found.accuracy.value < right / 2 / len(read)


def test_a_judge_that_takes_the_first_answer_is_told_from_one_that_takes_the_longer() -> None:
    rng = random.Random(1)

    def pair(at: int, *, first: bool) -> JudgedPair:
        lengths = (rng.randint(1, 99), rng.randint(100, 200))
        longer = (1, 2) if first else (2, 2)
        return JudgedPair(str(at), rng.choice((1, 2)), *longer, lengths)  # type: ignore[arg-type]  # choices

    by_place = pairwise.calibrate([pair(at, first=True) for at in range(60)])
    by_length = pairwise.calibrate([pair(at, first=False) for at in range(60)])
    assert (by_place.position_bias.value, by_length.position_bias.value) == (1, 0)
    assert by_place.length_bias is not None
    assert by_length.length_bias is not None
    assert by_place.length_bias.value == 0
    assert by_length.length_bias.value == 1


def test_a_gap_is_taken_between_rows_of_one_stratum_only() -> None:
    # Within each stratum nothing differs; over both together, the exposed ones are higher.
    values, exposed = [1.0] * 6 + [0.0] * 6, [True] * 5 + [False] + [False] * 5 + [True]
    found = gap(values, exposed, [0] * 6 + [1] * 6, None)
    assert found is not None
    assert found.value == 0
    assert gap(values, exposed, list(range(12)), None) is None


def judged(count: int = 200, seed: int = 2) -> list[Judged]:
    """Answers of which people pass 60 %; the judge misses some, and likes long ones."""
    rng = random.Random(seed)
    rows = []
    for at in range(count):
        truth, length = float(rng.random() < 0.6), rng.randint(10, 100)
        chance = 0.75 * truth + 0.1 + (0.1 if length > 55 else 0.0)
        verdict = float(rng.random() < chance)
        tags = {"language": rng.choice(("de", "en"))}
        rows.append(Judged(str(at), (truth,), verdict, length, str(at // 4), tags))
    return rows


def test_precision_and_recall_are_scikit_learns_also_by_slice() -> None:
    rows = judged()
    for part, found in (
        (rows, calibration.calibrate(rows)),
        ([r for r in rows if r.tags["language"] == "de"], calibration.calibrate(rows).slices["language=de"]),
    ):
        truths, said = [r.human[0] for r in part], [r.verdict for r in part]
        assert found.precision is not None
        assert found.recall is not None
        assert found.precision.value == pytest.approx(precision_score(truths, said))
        assert found.recall.value == pytest.approx(recall_score(truths, said))


def test_people_who_tie_leave_an_answer_unlabelled_and_a_missing_verdict_is_counted() -> None:
    rows = [*judged(20), Judged("tie", (0.0, 1.0), 1.0), Judged("silent", (1.0,), None)]
    found = calibration.calibrate(rows)
    assert (found.rows, found.labelled, found.unjudged) == (22, 20, 1)


def test_a_graded_judge_has_a_rank_correlation_and_people_a_ceiling() -> None:
    rng = random.Random(4)
    rows = []
    for at in range(80):
        quality = rng.gauss(3, 1)
        human = tuple(float(min(5, max(1, round(quality + rng.gauss(0, 0.8))))) for _ in range(3))
        rows.append(Judged(str(at), human, float(min(5, max(1, round(quality + rng.gauss(0, 2)))))))
    found = calibration.calibrate(rows, (1.0, 5.0))
    assert found.spearman is not None
    assert found.ceiling is not None
    assert found.precision is None
    assert found.ceiling.value > found.spearman.value > 0.2
