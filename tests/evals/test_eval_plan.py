"""`trilith eval plan`: the cases that a gate needs, from a pilot run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith.cli import main
from trilith_evals.comparison import Verdict, compare
from trilith_evals.dataset import Columns
from trilith_evals.foresight import foreseen
from trilith_evals.output.file import write_json
from trilith_evals.recorded import RecordedMetric, RecordedSuite


def recorded(path: Path, wrong: int, cases: int = 200, *, cluster: bool = False) -> Path:
    rows = [{"id": f"q{at}", "input": at, "expected": "yes", "from": f"d{at // 4}"} for at in range(cases)]
    report = evals.run(
        lambda at: "no" if at < wrong else "yes",
        rows,
        ["exact"],
        columns=Columns(cluster="from" if cluster else None),
    )
    write_json(report, path)
    return path


def test_it_says_the_cases_for_a_bound_and_at_most_those_for_a_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share of 0.8: 0.16 x (1.96 + 0.84)^2 / 0.05^2 is 502.3; of 200, n - 1 count."""
    pilot = recorded(tmp_path / "pilot.json", 40)
    assert main(["eval", "plan", str(pilot)]) == 0
    bound, before = capsys.readouterr().out.splitlines()
    assert bound == "suite: exact against a bound: 0.050 takes 505 cases; the pilot's 200 show 0.079"
    assert (
        before
        == "suite: exact against a run before: 0.050 takes at most 1,010 cases; the pilot's 200 show 0.112"
    )


def test_two_runs_tell_how_much_alike_cases_are_and_fewer_are_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pilot, second = recorded(tmp_path / "a.json", 40), recorded(tmp_path / "b.json", 50)
    assert main(["eval", "plan", str(pilot), str(second)]) == 0
    before = capsys.readouterr().out.splitlines()[1]
    assert "against a run before: 0.050 takes 150 cases" in before


def test_of_clustered_cases_it_counts_the_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pilot = recorded(tmp_path / "pilot.json", 40, cluster=True)
    assert main(["eval", "plan", str(pilot)]) == 0
    assert "sources, 2,052 cases at 4.0 each" in capsys.readouterr().out


def test_a_pilot_without_any_spread_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "plan", str(recorded(tmp_path / "pilot.json", 0))]) == 0
    assert "shows no spread, and tells nothing" in capsys.readouterr().out


def test_so_many_cases_as_it_says_see_the_difference_with_that_power() -> None:
    rng = random.Random(2)

    def drawn(n: int, better: float) -> dict[str, float]:
        return {str(at): rng.gauss(better, 1) for at in range(n)}

    pilot = RecordedSuite("s", "", {}, {"m": RecordedMetric(drawn(400, 0), 400, True, False)})
    second = RecordedSuite("s", "", {}, {"m": RecordedMetric(drawn(400, 0), 400, True, False)})
    needed = foreseen({"s": pilot}, {"s": second}, difference=0.5)[1].needed
    assert needed is not None
    seen = sum(compare(drawn(needed, 0), drawn(needed, 0.5)).verdict is Verdict.BETTER for _ in range(200))
    assert 0.7 < seen / 200 < 0.9
