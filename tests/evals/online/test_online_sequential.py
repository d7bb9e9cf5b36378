"""Tests that may be looked at after every window, and keep the budget of alarms."""

from __future__ import annotations

import numpy as np
import pytest

from trilith_evals.online.sequential import EDetector, Level, confidence_sequence


def test_the_mean_time_to_a_false_alarm_is_at_least_one_over_alpha() -> None:
    generator = np.random.default_rng(1)
    level = Level(mean=0.2, spread=0.02, error=0.0, windows=28)
    waits = []
    for _ in range(300):
        detector, windows = EDetector(level, alpha=1 / 20), 0
        while not detector.due and windows < 2000:
            detector.update(float(generator.normal(0.2, 0.02)))
            windows += 1
        waits.append(windows)
    assert np.mean(waits) >= 20


def test_windows_of_two_kinds_that_are_not_normal_keep_the_budget_too() -> None:
    generator = np.random.default_rng(2)
    level = Level(mean=0.0, spread=1.0, error=0.0, windows=28)
    waits = []
    for _ in range(300):
        detector, windows = EDetector(level, alpha=1 / 20), 0
        while not detector.due and windows < 2000:
            detector.update(float(generator.choice([3.0, -1.0], p=[0.25, 0.75])))
            windows += 1
        waits.append(windows)
    assert np.mean(waits) >= 20


def test_a_rise_of_two_spreads_is_seen_in_a_fortnight_of_days() -> None:
    generator = np.random.default_rng(3)
    detector = EDetector(Level(0.2, 0.02, 0.0, 28), alpha=1 / 30)
    for _ in range(14):
        detector.update(float(generator.normal(0.24, 0.02)))
    assert detector.due


def test_a_rise_within_the_tolerance_is_no_alarm() -> None:
    detector = EDetector(Level(0.2, 0.02, 0.0, 28), alpha=1 / 30, tolerance=0.05)
    for _ in range(200):
        detector.update(0.24)
    assert not detector.due


def test_a_level_of_windows_that_are_alike_is_known_less_well() -> None:
    apart = Level.of([0.1, 0.3] * 8)
    alike = Level.of([0.1] * 8 + [0.3] * 8)
    assert alike.error > apart.error


def test_three_windows_are_too_few_for_a_level() -> None:
    with pytest.raises(ValueError, match="3 windows with scores, expected 4 or more"):
        Level.of([0.1, 0.2, 0.3])


def test_the_interval_holds_the_mean_at_all_times_together() -> None:
    generator = np.random.default_rng(4)
    missed = 0
    for _ in range(100):
        values = [float(v) for v in generator.random(60) < 0.3]
        intervals = (confidence_sequence(values[:n]) for n in (5, 10, 20, 40, 60))
        missed += any(not low <= 0.3 <= high for low, high in intervals)
    assert missed <= 10  # 5 of 100 are expected at most


def test_the_interval_shrinks() -> None:
    low, high = confidence_sequence([0.0, 1.0] * 200)
    assert 0.35 < low < 0.5 < high < 0.65
