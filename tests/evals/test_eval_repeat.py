"""Repeats: how much a target wavers, pass@k and pass^k by case, and gates on them."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith_evals import Gate, Report
from trilith_evals.comparison import pass_hat_k
from trilith_evals.output.console import table
from trilith_evals.output.file import write_json
from trilith_evals.repeat import repeated

ROWS = [{"id": f"q{at}", "input": at, "expected": "yes"} for at in range(60)]


def run(share: float, *gates: Gate, k: int | None = 2, seed: int = 1, against: Path | None = None) -> Report:
    """Half of the cases are always right, the others so often as the share says."""
    rng = random.Random(seed)
    return evals.run(
        lambda at: "yes" if at % 2 or rng.random() < share else "no",
        ROWS,
        ["exact"],
        repeats=4,
        k={"exact": k} if k else None,
        gates=gates,
        against=against,
        concurrency=1,
    )


@pytest.mark.parametrize(("successes", "tries", "k"), [(2, 4, 2), (3, 5, 2), (4, 4, 3), (1, 4, 2)])
def test_pass_hat_k_is_the_share_of_draws_that_are_all_right(successes: int, tries: int, k: int) -> None:
    draws = list(itertools.combinations([1] * successes + [0] * (tries - successes), k))
    assert pass_hat_k(successes, tries, k) == pytest.approx(sum(map(all, draws)) / len(draws))
    with pytest.raises(ValueError, match="tell nothing"):
        pass_hat_k(successes, tries, tries + 1)


def test_the_spread_is_parted_into_cases_and_repeats() -> None:
    rng = random.Random(3)
    tries = {}
    for case in range(2000):
        own = rng.gauss(0, 2)
        tries[str(case)] = [own + rng.gauss(0, 1) for _ in range(3)]
    found = repeated("m", tries, {})
    assert found is not None
    assert [found.between, found.within] == pytest.approx([4, 1], rel=0.1)


def test_cases_that_waver_are_counted_and_named() -> None:
    found = repeated("m", {"a": [1, 1, 1], "b": [1, 0, 0], "c": [0, 0, 0], "d": [1]}, {})
    assert found is not None
    assert found.flaky == pytest.approx(1 / 3)
    assert found.flakiest == ("b",)


def test_pass_at_k_and_pass_hat_k_have_intervals_by_case() -> None:
    found = run(0.5).suites[0].repeated[0]
    at, hat = found.figures
    assert (at.metric, hat.metric, at.scored) == ("exact pass@2", "exact pass^2", 60)
    assert at.estimate is not None
    assert hat.estimate is not None
    assert at.estimate.value == pytest.approx(0.5 + 0.5 * 0.75, abs=0.06)
    assert hat.estimate.value == pytest.approx(0.5 + 0.5 * 0.25, abs=0.06)
    assert at.estimate.clusters == 60
    assert "of the cases waver" in table(run(0.5))


def test_graded_scores_have_no_pass_at_k() -> None:
    found = repeated("m", {"a": [0.5, 1.0]}, {}, 2)
    assert found is not None
    assert found.figures[0].problem == "scores that are neither 0 nor 1 have no pass@k"


def test_a_case_with_too_few_scored_tries_is_unscored() -> None:
    found = repeated("m", {"a": [1, 1], "b": [1]}, {}, 2)
    assert found is not None
    assert (found.figures[0].scored, found.figures[0].unscored) == (1, 1)


@pytest.mark.parametrize(("share", "code"), [(1.0, 0), (0.1, 1)])
def test_a_gate_may_be_on_all_of_k_tries_and_against_the_run_before(
    share: float, code: int, tmp_path: Path
) -> None:
    write_json(run(1.0, seed=2), tmp_path / "main.json")
    gates = Gate("exact pass^2", min=0.8), Gate("exact pass^2", not_worse_by=0.1)
    report = run(share, *gates, against=tmp_path / "main.json")
    assert report.exit_code == code
    assert {check.outcome.exit_code for check in report.suites[0].checks[-2:]} == {code}


def test_without_k_there_is_no_such_metric() -> None:
    with pytest.raises(ValueError, match="a gate names the metric 'exact pass\\^2'"):
        run(1.0, Gate("exact pass^2", min=0.5), k=None)
