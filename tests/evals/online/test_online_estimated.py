"""Performance before labels come, and labels that come late."""

from __future__ import annotations

import numpy as np
import pytest

from trilith_evals.online.estimated import Cbpe, LossModel, absolute, explained, zero_one
from trilith_evals.online.label import LabelJoiner
from trilith_evals.online.record import Record


def classified(
    generator: np.random.Generator, rows: int, middle: float, *, turned: float = 0.0
) -> list[Record]:
    """Scores that say too much: the true chance is halfway between the score and one half."""
    found = []
    for n in range(rows):
        score = float(np.clip(generator.normal(middle, 0.2), 0.01, 0.99))
        truth = generator.random() < 0.5 + (score - 0.5) / 2
        label = float(truth != (generator.random() < turned))
        found.append(Record(str(n), float(n), {"x": score}, score, label=label))
    return found


def blocks(generator: np.random.Generator) -> list[list[Record]]:
    return [classified(generator, 500, 0.8) for _ in range(12)]


def seen(records: list[Record]) -> float:
    return float(np.mean([zero_one(record) for record in records]))


def test_the_error_is_estimated_through_a_drift_of_inputs_though_scores_are_not_calibrated() -> None:
    generator = np.random.default_rng(1)
    estimator = Cbpe(blocks(generator))
    drifted = classified(generator, 2000, 0.6)
    found = estimator.estimate(drifted)
    assert found.low <= seen(drifted) <= found.high
    assert abs(found.value - seen(drifted)) < 0.05
    assert abs(np.mean([min(r.score or 0, 1 - (r.score or 0)) for r in drifted]) - seen(drifted)) > 0.05
    assert "no concept drift" in found.assumption


def test_labels_are_not_looked_at() -> None:
    generator = np.random.default_rng(2)
    estimator = Cbpe(blocks(generator))
    rows = classified(generator, 300, 0.7)
    known = estimator.estimate(rows).value
    for row in rows:
        row.label = None
    assert estimator.estimate(rows).value == known


def test_the_area_under_the_curve_is_estimated() -> None:
    from sklearn.metrics import roc_auc_score

    generator = np.random.default_rng(3)
    rows = classified(generator, 4000, 0.6)
    truth, scores = [r.label for r in rows], [r.score for r in rows]
    estimator = Cbpe([classified(generator, 500, 0.6) for _ in range(12)])
    assert estimator.auc(rows) == pytest.approx(roc_auc_score(truth, scores), abs=0.03)


def test_drift_of_inputs_explains_a_rise_and_a_turned_world_is_not_explained() -> None:
    generator = np.random.default_rng(4)
    reference = blocks(generator)
    usual = seen([r for block in reference for r in block])
    estimator = Cbpe(reference)
    by_inputs = explained(classified(generator, 2000, 0.6), estimator, usual, zero_one)
    by_world = explained(classified(generator, 2000, 0.8, turned=0.3), estimator, usual, zero_one)
    assert by_inputs is not None
    assert by_world is not None
    assert by_inputs.verdict == "the drift of the inputs explains it"
    assert by_world.verdict.startswith("more than the drift of the inputs explains")


def test_a_regressors_error_is_estimated_from_where_it_is_asked() -> None:
    generator = np.random.default_rng(5)

    def asked(rows: int, middle: float) -> list[Record]:
        xs = generator.normal(middle, 1.0, rows)
        return [
            Record(str(n), float(n), {"x": float(x)}, 0.0, label=float(generator.normal(0, 1 + max(0.0, x))))
            for n, x in enumerate(xs)
        ]

    estimator = LossModel([asked(500, 0.0) for _ in range(8)])
    there = asked(1500, 1.0)
    true = float(np.mean([absolute(record) for record in there]))
    found = estimator.estimate(there)
    assert found.value == pytest.approx(true, rel=0.15)


def test_a_reference_with_one_class_is_refused() -> None:
    rows = [[Record(str(n), float(n), score=0.9, label=1.0) for n in range(50)] for _ in range(5)]
    with pytest.raises(ValueError, match="one class only"):
        Cbpe(rows)


def test_a_label_is_not_used_before_it_is_known() -> None:
    joiner = LabelJoiner(100.0)
    record = Record("a", 0.0)
    joiner.observe(record)
    joiner.label("a", 1.0, at=10.0)
    assert joiner.advance(9.9) == []
    assert joiner.state().waiting == 1
    assert [joined.label for joined in joiner.advance(10.0)] == [1.0]
    assert joiner.state().typical_delay_s == 10.0


def test_labels_that_never_come_are_counted_once_they_are_old_enough() -> None:
    joiner = LabelJoiner(100.0)
    for n in range(4):
        joiner.observe(Record(str(n), float(n)))
    joiner.label("0", 1.0, at=5.0)
    joiner.advance(50.0)
    assert (joiner.state().waiting, joiner.state().never_share) == (3, 0.0)
    joiner.advance(200.0)
    assert (joiner.state().waiting, joiner.state().never_share) == (0, 0.75)


def test_a_label_that_comes_before_its_record_waits_for_it() -> None:
    joiner = LabelJoiner(100.0)
    joiner.label("a", 1.0, at=5.0)
    joiner.advance(6.0)
    record = Record("a", 4.0)
    joiner.observe(record)
    assert record.label == 1.0
