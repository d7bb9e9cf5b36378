"""Whether features, rows and embeddings moved: with a null that knows that neighbouring rows are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from trilith_evals.comparison import benjamini_hochberg
from trilith_evals.online.finding import Kind
from trilith_evals.online.multivariate import Mmd, embeddings
from trilith_evals.online.record import Record, Reference, Window
from trilith_evals.online.twosample import FeatureDrift, psi


def autocorrelated(generator: np.random.Generator, rows: int, shift: float = 0.0) -> list[float]:
    value, found = 0.0, []
    for noise in generator.standard_normal(rows):
        value = 0.95 * value + noise
        found.append(value + shift)
    return found


def records(columns: Mapping[str, Sequence[object]]) -> tuple[Record, ...]:
    rows = zip(*columns.values(), strict=True)
    return tuple(Record(str(n), float(n), dict(zip(columns, row, strict=True))) for n, row in enumerate(rows))


def window(columns: Mapping[str, Sequence[object]]) -> Window:
    found = records(columns)
    return Window(0.0, float(len(found)), found)


def test_windows_like_an_autocorrelated_reference_are_quiet_where_scipys_test_fires() -> None:
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(1)
    usual = autocorrelated(generator, 8000)
    detector = FeatureDrift(Reference(records({"a": list(usual)})), least_psi=0)
    ours = textbook = 0
    for _ in range(60):
        found = autocorrelated(generator, 400)
        ours += detector.update(window({"a": list(found)}))[0].kind is Kind.NOTICE
        textbook += ks_2samp(usual, found).pvalue <= 0.05
    assert textbook >= 40
    assert ours <= 7  # 60 windows at 5 %: 3 are expected, and more than 7 come in one of a hundred runs


def test_a_feature_that_moved_is_named_and_its_neighbour_is_not() -> None:
    generator = np.random.default_rng(2)
    usual = {"moved": list(generator.normal(size=3000)), "still": list(generator.normal(size=3000))}
    now = {"moved": list(generator.normal(1.0, size=300)), "still": list(generator.normal(size=300))}
    found = FeatureDrift(Reference(records(usual))).update(window(now))
    assert [(finding.subject, finding.kind) for finding in found] == [
        ("moved", Kind.NOTICE),
        ("still", Kind.QUIET),
    ]


def test_a_category_that_takes_over_is_a_notice() -> None:
    generator = np.random.default_rng(3)
    usual = [str(v) for v in generator.choice(["a", "b", "c"], size=2000, p=[0.6, 0.3, 0.1])]
    now = [str(v) for v in generator.choice(["a", "b", "c"], size=200, p=[0.1, 0.3, 0.6])]
    (found,) = FeatureDrift(Reference(records({"f": list(usual)}))).update(window({"f": list(now)}))
    assert found.kind is Kind.NOTICE


def test_a_feature_that_goes_missing_has_moved() -> None:
    generator = np.random.default_rng(4)
    usual = list(generator.normal(size=2000))
    now = [None if at % 2 else value for at, value in enumerate(generator.normal(size=300))]
    (found,) = FeatureDrift(Reference(records({"f": list(usual)}))).update(window({"f": list(now)}))
    assert found.kind is Kind.NOTICE


def test_a_constant_that_leaves_its_value_is_unseen() -> None:
    detector = FeatureDrift(Reference(records({"f": [1.0] * 500})))
    (same,) = detector.unseen(window({"f": [1.0] * 100}), 0.5)
    (other,) = detector.unseen(window({"f": [1.0] * 40 + [2.0] * 60}), 0.5)
    assert (same.kind, other.kind, other.value) == (Kind.QUIET, Kind.ALARM, 0.6)


def test_too_few_rows_are_no_evidence() -> None:
    detector = FeatureDrift(Reference(records({"f": [1.0, 2.0] * 100})))
    assert detector.update(window({"f": [1.0] * 5}))[0].kind is Kind.NO_EVIDENCE


def test_false_discoveries_are_adjusted_as_benjamini_and_hochberg_do() -> None:
    # .01 * 4/1, .02 * 4/2, .03 * 4/3, .5 * 4/4, made monotone from the right
    assert benjamini_hochberg([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])


def test_the_stability_index_of_the_same_shares_is_zero() -> None:
    assert psi([100, 100], [100, 100]) == pytest.approx(0)
    # shares .5/.5 to .9/.1: .4 ln(1.8) - .4 ln(.2) = .879, half a count added moves it little
    assert psi([5000, 5000], [9000, 1000]) == pytest.approx(0.879, abs=0.002)


def test_questions_about_something_else_move_the_embeddings() -> None:
    generator = np.random.default_rng(5)

    def asked(count: int, middle: float) -> tuple[Record, ...]:
        rows = generator.normal(middle, 1.0, size=(count, 16))
        return tuple(Record(str(n), float(n), embedding=[*map(float, row)]) for n, row in enumerate(rows))

    detector = Mmd(Reference(asked(1000, 0.0)), embeddings, source="text")
    (alike,) = detector.update(Window(0, 1, asked(100, 0.0)))
    (other,) = detector.update(Window(0, 1, asked(100, 0.5)))
    assert (alike.kind, other.kind) == (Kind.QUIET, Kind.NOTICE)
