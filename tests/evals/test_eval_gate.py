"""Gates: fail beyond doubt, pass beyond doubt, else no evidence; over all cases, slices and against a run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trilith_evals as evals
from trilith.errors import DataError, InternalServerError
from trilith_evals import Gate, Outcome, Report
from trilith_evals.dataset import Columns
from trilith_evals.output.file import write_json
from trilith_evals.recorded import read

ROWS = [
    {"id": f"q{at}", "input": at, "expected": "yes", "language": "de" if at % 4 == 0 else "en"}
    for at in range(200)
]


def run(right: Callable[[int], bool], *gates: Gate, rows: Any = ROWS, **options: Any) -> Report:
    columns = Columns(tags=("language",))
    return evals.run(
        lambda at: "yes" if right(at) else "no", rows, ["exact"], gates=gates, columns=columns, **options
    )


def outcomes(report: Report) -> list[Outcome]:
    """Without the coverage's."""
    return [check.outcome for check in report.suites[0].checks[1:]]


@pytest.mark.parametrize(
    ("wrong", "code"), [(10, 0), (36, 2), (80, 1)], ids=["surely above", "cannot say", "surely below"]
)
def test_an_absolute_gate_needs_evidence_for_either(wrong: int, code: int) -> None:
    report = run(lambda at: at >= wrong, Gate("exact", min=0.8))
    assert report.exit_code == code


def test_no_evidence_comes_with_the_cases_that_would_decide_and_every_line_with_what_is_detectable() -> None:
    """82 % of 200 against 80 %: (0.0283 x 2.8 / 0.02) squared, times 200."""
    (check,) = run(lambda at: at >= 36, Gate("exact", min=0.8)).suites[0].checks[1:]
    assert "0.079 from the bound detectable" in check.message
    assert "3,140 independent cases would decide" in check.message


@pytest.mark.parametrize(
    ("lost", "margin", "code"),
    [(40, 0.05, 1), (0, 0.0, 0), (2, 0.05, 0), (12, 0.05, 2)],
    ids=["worse", "the same answers", "within the margin", "too near to say"],
)
def test_a_gate_against_the_run_before_needs_evidence_for_either(lost: int, margin: float, code: int) -> None:
    before = run(lambda at: at < 180)
    report = run(lambda at: lost <= at < 180, Gate("exact", not_worse_by=margin), against=before)
    assert report.exit_code == code


@pytest.mark.parametrize(("won", "code"), [(0, 2), (5, 2), (20, 0), (-20, 1)])
def test_better_is_only_what_is_surely_better(won: int, code: int) -> None:
    before = run(lambda at: at < 150)
    assert run(lambda at: at < 150 + won, Gate("exact", better=True), against=before).exit_code == code


def test_what_is_unproven_may_count_as_a_pass_and_what_is_surely_worse_still_fails() -> None:
    before, gate = run(lambda at: at < 180), Gate("exact", not_worse_by=0, unproven="pass")
    assert run(lambda at: 3 <= at < 180, gate, against=before).exit_code == 0
    assert run(lambda at: 30 <= at < 180, gate, against=before).exit_code == 1


@pytest.mark.parametrize(("lost", "code"), [(5, 2), (6, 1)])
def test_a_few_lost_cases_fail_no_gate_that_chance_could_fail(lost: int, code: int) -> None:
    """Student's t is sure of 5 of 200 (one-sided p 0.012), chance does it once in 32."""
    before = run(lambda at: True)
    assert run(lambda at: at >= lost, Gate("exact", not_worse_by=0), against=before).exit_code == code


def test_a_gate_against_nothing_could_not_run() -> None:
    assert run(lambda at: True, Gate("exact", better=True)).exit_code == 3


def test_a_slice_fails_where_the_whole_is_good() -> None:
    report = run(
        lambda at: at % 4 != 0 or at % 8 == 0,
        Gate("exact", min=0.7),
        Gate("exact", min=0.7, slice="language"),
    )
    assert outcomes(report) == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]
    assert "exact [language=de] >= 0.7" in report.suites[0].checks[2].name


def test_a_slice_of_too_few_rows_is_no_evidence_and_named() -> None:
    (check,) = (
        run(lambda at: False, Gate("exact", min=0.7, slice="language=de", min_rows=51)).suites[0].checks[1:]
    )
    assert (check.outcome, check.message) == (Outcome.NO_EVIDENCE, "50 scored rows, a slice needs 51")


def test_what_is_unproven_may_pass_but_not_what_was_never_tested() -> None:
    gate = Gate("exact", min=0.7, slice="language=de", min_rows=51, unproven="pass")
    (check,) = run(lambda at: True, gate).suites[0].checks[1:]
    assert check.outcome is Outcome.NO_EVIDENCE


def test_a_slice_that_no_case_is_of_could_not_run() -> None:
    assert run(lambda at: True, Gate("exact", min=0.7, slice="language=fr")).exit_code == 3


def test_figures_are_given_for_every_value_of_a_tag() -> None:
    suite = run(lambda at: at % 4 == 0).suites[0]
    found = {figure.slice: figure.estimate.value for figure in suite.slices if figure.estimate}
    assert found == {"language=de": 1.0, "language=en": 0.0}


def test_the_slices_that_got_worse_are_listed_and_are_no_part_of_the_verdict() -> None:
    before = run(lambda at: True)
    gate = Gate("exact", not_worse_by=0.5)
    report = run(lambda at: at % 8 != 0, gate, against=before)
    worse = [
        line.slice for line in report.suites[0].lines if line.slice and line.check.outcome is Outcome.FAIL
    ]
    assert (worse, report.exit_code) == (["language=de"], 0)


def test_many_gates_share_one_chance_of_a_false_alarm() -> None:
    """What one gate alone calls a failure is no evidence among twenty."""
    before, gate = run(lambda at: True), Gate("exact", not_worse_by=0)
    wrong: Callable[[int], bool] = lambda at: at >= 7  # noqa: E731  # p 0.016
    assert run(wrong, gate, against=before).exit_code == 1
    assert run(wrong, *[gate] * 20, against=before).exit_code == 2


def test_a_gate_with_a_smaller_alpha_spends_less_of_it() -> None:
    before = run(lambda at: True)
    strict, usual = Gate("exact", not_worse_by=0, alpha=0.001), Gate("exact", not_worse_by=0)
    report = run(lambda at: at >= 9, strict, usual, against=before)
    assert outcomes(report) == [Outcome.NO_EVIDENCE, Outcome.FAIL]


def test_an_unchanged_target_is_seldom_called_worse_over_all_gates_and_slices() -> None:
    rng, alarms = random.Random(5), 0
    rows = [{**row, "language": "abcd"[number % 4]} for number, row in enumerate(ROWS)]
    gates = (Gate("exact", not_worse_by=0), Gate("exact", not_worse_by=0, slice="language"))
    for _ in range(20):
        before = run(lambda at: rng.random() < 0.8, rows=rows)
        alarms += run(lambda at: rng.random() < 0.8, *gates, rows=rows, against=before).exit_code == 1
    assert alarms <= 3  # 2.5 % of 20, and three standard errors


def test_without_gates_every_metric_must_not_be_worse_than_the_run_before() -> None:
    before = run(lambda at: True)
    report = run(lambda at: at >= 40, against=before)
    assert (report.exit_code, report.suites[0].baseline) == (1, "the run before")
    assert [line.metric for line in report.suites[0].lines if not line.slice] == ["exact"]


def test_a_run_of_wholly_other_cases_could_not_be_compared_and_is_not_lost() -> None:
    before = run(lambda at: True, rows=[{**row, "id": f"other {row['id']}"} for row in ROWS])
    report = run(lambda at: True, against=before)
    assert report.exit_code == 3
    assert "no metric has a case that is scored in both runs" in report.suites[0].checks[-1].message
    assert report.suites[0].figures[0].scored == 200


def test_a_case_that_is_another_one_under_its_old_id_is_no_pair() -> None:
    before = run(lambda at: True)
    rows = [{**row, "input": 1000 + row["input"]} if number < 5 else row for number, row in enumerate(ROWS)]  # type: ignore[operator]
    (check,) = (
        run(lambda at: True, Gate("exact", not_worse_by=0), rows=rows, against=before).suites[0].checks[1:]
    )
    assert "over 195 cases" in check.message
    assert "the dataset has changed, 5 cases are no longer what they were" in check.message


def test_too_few_common_cases_could_not_be_compared() -> None:
    before = run(lambda at: True, rows=ROWS[:180])
    report = run(lambda at: False, Gate("exact", not_worse_by=0), against=before)
    assert report.exit_code == 3
    assert "only 180 cases are scored in both runs, 90% of them" in report.suites[0].checks[1].message


@pytest.mark.parametrize(("broken", "code"), [(10, 0), (11, 3)], ids=["95 % covered", "below it"])
def test_infrastructure_is_not_the_model_at_the_border_of_coverage(broken: int, code: int) -> None:
    def target(at: int) -> str:
        if at >= 200 - broken:
            raise InternalServerError("down", status_code=503)
        return "yes"

    assert evals.run(target, ROWS, ["exact"]).exit_code == code


def test_a_target_that_fails_on_three_percent_passes_with_the_bounds_of_the_mean_shown() -> None:
    def target(at: int) -> str:
        if at < 6:
            raise ValueError("no")
        return "yes" if at < 180 else "no"

    report = evals.run(target, ROWS, ["exact"])
    assert report.exit_code == 0
    assert report.suites[0].figures[0].bounds == (0.87, 0.9)
    assert "lies from 0.870 to 0.900" in report.suites[0].checks[0].message


def recorded(path: Path, report: Report) -> Path:
    write_json(report, path)
    return path


def test_a_run_may_be_held_against_a_file(tmp_path: Path) -> None:
    before = recorded(tmp_path / "main.json", run(lambda at: True))
    report = run(lambda at: at >= 40, Gate("exact", not_worse_by=0.02), against=before)
    assert (report.exit_code, report.suites[0].baseline) == (1, str(before))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda rows: rows.append(rows[0]), "'q0' stands twice"),
        (lambda rows: rows[0]["scores"]["exact"].update(value=float("nan")), "has the score nan under exact"),
    ],
    ids=["a row twice", "NaN"],
)
def test_a_recorded_run_with_bad_rows_is_refused(
    tmp_path: Path, harm: Callable[[list[Any]], Any], said: str
) -> None:
    report = run(lambda at: True).to_json()
    report["suites"][0]["rows"].sort(key=lambda row: row["id"] != "q0")
    harm(report["suites"][0]["rows"])
    (tmp_path / "bad.json").write_text(json.dumps(report))
    with pytest.raises(DataError, match=said):
        read(tmp_path / "bad.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"min": 1.0, "better": True},
        {"not_worse_by": -1.0},
        {"min": 0.5, "alpha": 0.0},
        {"min": 2, "max": 1},
    ],
)
def test_a_gate_that_says_nothing_or_two_things_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the gate on 'exact'"):
        Gate("exact", **wrong)


def test_a_gate_on_what_is_not_measured_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="a gate names the metric 'f1'"):
        run(lambda at: True, Gate("f1", min=0.5))


def predicted(noise: float, seed: int, before: Any = None, gate: Gate | None = None) -> Report:
    rng = random.Random(seed)
    rows = [{"id": str(at), "input": at / 100, "expected": at / 100} for at in range(150)]
    return evals.run(
        lambda at: at + rng.gauss(0, noise), rows, ["r2"], gates=[gate] if gate else [], against=before
    )


@pytest.mark.parametrize(("noise", "code"), [(0.1, 0), (0.4, 1)])
def test_figures_over_the_suite_are_compared_as_figures(noise: float, code: int, tmp_path: Path) -> None:
    """The spread of the truth is 0.433; noise of 0.4 takes R2 from 0.95 to below 0.2."""
    before = recorded(tmp_path / "main.json", predicted(0.1, 1))
    report = predicted(noise, 2, before, Gate("r2", not_worse_by=0.1))
    assert report.exit_code == code
    line = report.suites[0].lines[0]
    assert line.comparison.difference.method == "paired bootstrap"


def test_without_recorded_predictions_the_losses_are_compared(tmp_path: Path) -> None:
    from dataclasses import replace

    before = recorded(tmp_path / "main.json", replace(predicted(0.1, 1), content=False))
    report = predicted(0.4, 2, before, Gate("r2", not_worse_by=0.1))
    assert report.suites[0].lines[0].comparison.difference.method == "paired t"
    assert report.exit_code == 1
