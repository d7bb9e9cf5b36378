"""A model that tells windows from the reference sees what no single feature shows, and is quiet otherwise."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from trilith_evals.online.classifier import ClassifierTest
from trilith_evals.online.finding import Kind
from trilith_evals.online.record import Record, Reference, Window
from trilith_evals.online.twosample import FeatureDrift


def rows(generator: np.random.Generator, count: int, *, together: float = 0.0) -> tuple[Record, ...]:
    """Two numbers, each of them spread as ever; `together` says how far they go with each other."""
    first = generator.normal(size=count)
    second = together * first + (1 - together**2) ** 0.5 * generator.normal(size=count)
    pairs = zip(first, second, strict=True)
    return tuple(Record(str(n), float(n), {"a": float(a), "b": float(b)}) for n, (a, b) in enumerate(pairs))


def drifting(generator: np.random.Generator, count: int) -> tuple[Record, ...]:
    value, found = 0.0, []
    for n, noise in enumerate(generator.normal(size=count)):
        value = 0.98 * value + noise
        found.append(Record(str(n), float(n), {"a": value, "b": float(noise)}))
    return tuple(found)


def test_features_that_begin_to_go_together_are_seen_by_trees_and_by_no_single_feature() -> None:
    generator = np.random.default_rng(1)
    reference = Reference(rows(generator, 4000))
    window = Window(0.0, 1.0, rows(generator, 400, together=0.9))
    (found,) = ClassifierTest(reference).update(window)
    assert found.kind is Kind.NOTICE
    assert found.value is not None
    assert found.value > 0.65
    assert {f.kind for f in FeatureDrift(reference).update(window)} == {Kind.QUIET}


@pytest.mark.parametrize("learner", ["logistic", "trees"])
def test_windows_like_an_autocorrelated_reference_are_quiet(learner: Literal["logistic", "trees"]) -> None:
    generator = np.random.default_rng(2)
    stream = drifting(generator, 4000 + 20 * 250)
    detector = ClassifierTest(Reference(stream[:4000]), learner)
    windows = [Window(0.0, 1.0, stream[at : at + 250]) for at in range(4000, len(stream), 250)]
    noticed = sum(detector.update(window)[0].kind is Kind.NOTICE for window in windows)
    assert noticed <= 2  # 20 windows at 1 %


def test_a_shift_is_seen_by_the_logistic_model() -> None:
    generator = np.random.default_rng(3)
    reference = Reference(rows(generator, 2000))
    moved = tuple(
        Record(r.id, r.at, {**r.features, "a": r.features["a"] + 1.0}) for r in rows(generator, 200)
    )
    (found,) = ClassifierTest(reference, "logistic").update(Window(0.0, 1.0, moved))
    assert found.kind is Kind.NOTICE


def test_too_few_rows_are_no_evidence_and_too_small_a_reference_is_refused() -> None:
    generator = np.random.default_rng(4)
    detector = ClassifierTest(Reference(rows(generator, 200)))
    assert detector.update(Window(0.0, 1.0, rows(generator, 10)))[0].kind is Kind.NO_EVIDENCE
    with pytest.raises(ValueError, match="the reference has 20 rows"):
        ClassifierTest(Reference(rows(generator, 20)))
