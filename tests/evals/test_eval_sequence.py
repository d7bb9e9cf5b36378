"""Runs that stop when they are decided, with intervals that hold for every look."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import trilith_evals as evals
from trilith_evals import Gate, Outcome, Report, Threshold, estimate, sequence
from trilith_evals.dataset import Columns

ROWS = [{"id": f"q{at}", "input": at, "expected": "yes", "tag": "ab"[at % 2]} for at in range(400)]


def run(right: Callable[[int], bool], *gates: Gate, against: Report | None = None) -> evals.SuiteReport:
    columns = Columns(tags=("tag",))
    report = evals.run(
        lambda at: "yes" if right(at) else "no",
        ROWS,
        ["exact"],
        gates=gates,
        columns=columns,
        stop_early=True,
        against=against,
    )
    return report.suites[0]


def whole(right: Callable[[int], bool]) -> Report:
    return evals.run(lambda at: "yes" if right(at) else "no", ROWS, ["exact"])


@pytest.mark.parametrize(
    ("target", "outcome"),
    [(lambda at: True, Outcome.PASS), (lambda at: at % 3 == 0, Outcome.FAIL)],
    ids=["surely good", "surely bad"],
)
def test_a_run_stops_when_its_gate_is_decided(target: Callable[[int], bool], outcome: Outcome) -> None:
    found = run(target, Gate("exact", min=0.7))
    assert found.outcome is outcome
    assert 20 <= len(found.rows) < 200
    assert (found.planned_rows, found.figures[0].total) == (400, len(found.rows))


def test_what_is_not_decided_runs_to_its_end_with_the_interval_that_holds_for_all_looks() -> None:
    found = run(lambda at: at % 10 < 7, Gate("exact", min=0.7))
    assert (found.outcome, len(found.rows)) == (Outcome.NO_EVIDENCE, 400)
    shown, once = found.figures[0].estimate, estimate.mean([float(at % 10 < 7) for at in range(400)])
    assert shown is not None
    assert None not in (shown.low, shown.high, once.low, once.high)
    assert shown.method == "always valid"
    assert shown.high - shown.low > 1.3 * (once.high - once.low)  # type: ignore[operator]  # not None


def test_a_sorted_dataset_is_not_decided_by_its_first_cases() -> None:
    """The first half is all right, the second all wrong."""
    assert run(lambda at: at < 200, Gate("exact", min=0.8)).outcome is Outcome.FAIL


def test_a_worse_run_than_before_is_stopped() -> None:
    found = run(lambda at: at % 3 != 0, Gate("exact", not_worse_by=0.02), against=whole(lambda at: True))
    assert found.outcome is Outcome.FAIL
    assert len(found.rows) < 200


def test_what_one_look_would_call_worse_is_no_evidence_after_many() -> None:
    """8 of 400 lost and none won: 2.8 standard errors, and the sequence wants 3.1 there."""
    before, gate = whole(lambda at: True), Gate("exact", not_worse_by=0)
    assert run(lambda at: at % 50 != 0, gate, against=before).outcome is Outcome.NO_EVIDENCE
    once = evals.run(lambda at: "yes" if at % 50 else "no", ROWS, ["exact"], gates=[gate], against=before)
    assert once.outcome is Outcome.FAIL


def test_all_gates_must_pass_before_a_good_run_stops_and_one_failing_slice_is_enough() -> None:
    alone = run(lambda at: True, Gate("exact", min=0.7))
    both = run(lambda at: True, Gate("exact", min=0.7), Gate("exact", min=0.7, slice="tag"))
    assert len(alone.rows) < len(both.rows) < 400
    assert (
        run(lambda at: at % 2 == 0, Gate("exact", min=0.3), Gate("exact", min=0.7, slice="tag")).outcome
        is Outcome.FAIL
    )


@pytest.mark.parametrize(
    ("scorers", "gates", "said"),
    [(["exact"], [], "needs gates"), (["mae"], [Gate("mae", max=1)], "judges all cases at once")],
)
def test_what_cannot_be_decided_early_is_refused(scorers: list[str], gates: list[Gate], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evals.run(str, ROWS, scorers, gates=gates, stop_early=True)


def test_a_threshold_on_an_interval_for_one_look_is_refused() -> None:
    wrong = Threshold("exact", min=0.7, on="interval")
    with pytest.raises(
        ValueError, match=r"holds for one look only.*make it a gate: {metric: exact, min: 0.7}"
    ):
        evals.run(str, ROWS, ["exact"], gates=[Gate("exact", min=0.7)], thresholds=[wrong], stop_early=True)


def test_a_run_that_may_stop_early_is_not_silently_left_uncompared() -> None:
    found = run(lambda at: True, Gate("exact", min=0.7), against=whole(lambda at: True))
    assert found.outcome is Outcome.COULD_NOT_RUN
    assert "by its gates; none does so" in found.checks[-1].message


def test_looking_after_every_few_cases_raises_no_more_false_alarms() -> None:
    """Student's t, looked at 19 times, errs in about one run of five."""
    rng = random.Random(4)
    missed = plain = 0
    for _ in range(150):
        values = [rng.gauss(0, 1) for _ in range(400)]
        looks = [estimate.mean(values[:n]) for n in range(40, 401, 20)]
        plain += any(not holds(one) for one in looks)
        missed += any(not holds(sequence.always_valid(one, 400)) for one in looks)
    assert missed / 150 <= 0.05
    assert plain / 150 > 0.1


def holds(found: estimate.Estimate) -> bool:
    assert found.low is not None
    assert found.high is not None
    return found.low <= 0 <= found.high


def test_a_few_cases_say_nothing_yet() -> None:
    found = sequence.always_valid(estimate.mean([1.0] * 19), 400)
    assert (found.low, found.high, found.tail(0.5, above=True)) == (None, None, None)
