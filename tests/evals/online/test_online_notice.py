"""A move that lasts is one notice, and what single features cannot be held against has a notice too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from trilith_evals.online import Finding, Kind, Monitor, MonitorSettings, Record
from trilith_evals.online.notice import Episodes
from trilith_evals.online.record import Reference, Window
from trilith_evals.online.twosample import FeatureDrift

DAY_S = 86_400.0


def finding(kind: Kind) -> Finding:
    return Finding(kind, "feature", "x", 0.0, 1.0)


def kinds(episodes: Episodes, *found: Kind) -> list[Kind]:
    return [episodes.of([finding(kind)])[0].kind for kind in found]


def test_a_feature_that_moves_in_every_other_window_is_one_notice() -> None:
    flaps = [Kind.NOTICE, Kind.QUIET] * 5
    assert kinds(Episodes(), *flaps) == [Kind.NOTICE] + [Kind.OPEN] * 9


def test_a_move_is_over_after_three_quiet_windows_and_may_begin_anew() -> None:
    found = kinds(Episodes(), Kind.NOTICE, Kind.QUIET, Kind.QUIET, Kind.QUIET, Kind.QUIET, Kind.NOTICE)
    assert found == [Kind.NOTICE, Kind.OPEN, Kind.OPEN, Kind.CLOSED, Kind.QUIET, Kind.NOTICE]


def test_a_restart_says_no_notice_a_second_time() -> None:
    first, second = Episodes(), Episodes()
    kinds(first, Kind.NOTICE, Kind.QUIET)
    second.restore(json.loads(json.dumps(first.state())))
    assert kinds(second, Kind.NOTICE) == [Kind.OPEN]


def day(number: int, **columns: Any) -> list[Record]:
    generator = np.random.default_rng(number)
    rows = []
    for n in range(60):
        given = {"still": 7.0, "x": float(generator.normal()), "y": float(generator.normal())}
        score = float(generator.random() < 0.5)
        moved = {name: given[name] + by for name, by in columns.items()}
        rows.append(Record(f"{number}-{n}", number * DAY_S + n * 1000, given | moved, score, label=score))
    return rows


def notices(days: list[list[Record]], **settings: Any) -> list[tuple[str, str]]:
    reference = [record for number in range(28) for record in day(number)]
    monitor = Monitor(MonitorSettings.model_validate(settings), reference)
    for records in days:
        for record in records:
            monitor.observe(record)
    return [(f.source, f.subject) for f in monitor.advance(60 * DAY_S) if f.kind is Kind.NOTICE]


def test_a_constant_that_moves_is_a_notice_though_no_test_can_speak_of_it() -> None:
    found = notices([day(n, still=1.0) for n in range(28, 34)])
    assert found.count(("unseen", "still")) == 1
    assert ("feature", "still") not in found


def test_half_of_the_features_that_move_together_are_a_notice_of_their_own() -> None:
    found = notices([day(n, x=3.0, y=3.0) for n in range(28, 31)])
    assert found.count(("inputs", "share")) == 1
    assert ("inputs", "share") not in notices([day(n, x=3.0) for n in range(28, 31)])


def test_a_classifier_that_says_one_class_more_often_is_named() -> None:
    def always(number: int) -> list[Record]:
        rows = day(number)
        for record in rows:
            record.score = 0.9
        return rows

    found = notices([always(n) for n in range(28, 31)], loss="error")
    assert ("prediction", "class") in found


@pytest.mark.parametrize(("by", "distance"), [(0.0, 0.0), (2.0, 2.0)])
def test_a_finding_says_how_far_a_number_moved_in_its_own_spread(by: float, distance: float) -> None:
    generator = np.random.default_rng(5)
    usual = [Record(str(n), float(n), {"x": 10.0 * float(generator.normal())}) for n in range(4000)]
    now = tuple(Record(str(n), float(n), {"x": 10.0 * float(generator.normal() + by)}) for n in range(1000))
    (found,) = FeatureDrift(Reference(tuple(usual))).update(Window(0.0, 1.0, now))
    assert found.distance == pytest.approx(distance, abs=0.15)
