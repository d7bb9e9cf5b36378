"""`trilith eval compare`: two recorded runs, and an exit code that may say that nothing is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import trilith_evals as evals
from trilith.cli import main
from trilith_evals.output.file import write_json

Row = dict[str, Any]


def recorded(
    path: Path, right: Callable[[int], bool], *, cases: Sequence[int] = range(120), name: str = "suite"
) -> Path:
    """Run a target that is right on some cases, and record it; three cases come from one document each."""
    rows: list[Row] = [
        {"id": f"q{at}", "input": str(at), "expected": "yes", "cluster": f"d{at // 3}"} for at in cases
    ]
    report = evals.run(
        lambda question: "yes" if right(int(question)) else "no",
        rows,
        ["exact"],
        name=name,
        columns=evals_columns(),
    )
    write_json(report, path)
    return path


def evals_columns() -> Any:
    from trilith_evals.dataset import Columns

    return Columns(cluster="cluster")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return recorded(tmp_path / "base.json", lambda at: at % 4 != 0)


@pytest.mark.parametrize(
    ("right", "code", "said"),
    [
        (lambda at: at % 2 == 0, 1, "worse: -0.25 ["),
        (lambda at: True, 0, "better: +0.25 ["),
        (lambda at: at % 4 != 0, 0, "no evidence: +0 [+0, +0]"),
        (lambda at: at % 4 != 0 and at != 7, 2, "would decide a difference of this size"),
    ],
    ids=["worse", "better", "the same", "hardly different"],
)
def test_the_exit_code_is_the_verdict(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: Callable[[int], bool],
    code: int,
    said: str,
) -> None:
    new = recorded(tmp_path / "new.json", right)
    assert main(["eval", "compare", str(base), str(new)]) == code
    told = capsys.readouterr().out
    assert said in told
    assert "over 120 cases of 40 sources" in told


def test_a_margin_makes_a_pass_of_what_is_surely_within_it(base: Path, tmp_path: Path) -> None:
    new = recorded(tmp_path / "new.json", lambda at: at % 4 != 0 and at != 7)
    assert main(["eval", "compare", str(base), str(new), "--margin", "0.1"]) == 0


def test_runs_that_have_too_few_cases_in_common_cannot_be_compared(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = recorded(tmp_path / "new.json", lambda at: at % 4 != 0, cases=range(60, 180))
    assert main(["eval", "compare", str(base), str(new)]) == 3
    told = capsys.readouterr().out
    assert "only 60 cases are scored in both runs, 50% of them" in told
    assert "the dataset has changed: only the cases of both count" in told


def test_several_metrics_share_one_chance_of_a_false_alarm(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What one metric alone would show is no evidence among twenty."""
    new = recorded(tmp_path / "new.json", lambda at: at % 4 != 0 and at not in (1, 5, 14, 26, 37, 50))
    assert main(["eval", "compare", str(base), str(new)]) == 1
    for path in (base, new):
        report = json.loads(path.read_text())
        (suite,) = report["suites"]
        report["suites"] = [{**suite, "name": f"suite {number}"} for number in range(20)]
        path.write_text(json.dumps(report))
    assert main(["eval", "compare", str(base), str(new)]) == 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ('{"a": 1}', "is no report of a run"),
        ('{"suites": [{"name": 1}]}', "is no report of a run"),
    ],
)
def test_what_is_no_report_cannot_be_compared(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    other = tmp_path / "other.json"
    if content is not None:
        other.write_text(content)
    assert main(["eval", "compare", str(base), str(other)]) == 3
    assert said in capsys.readouterr().err


def test_runs_of_other_suites_cannot_be_compared(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = recorded(tmp_path / "other.json", lambda at: True, name="another")
    assert main(["eval", "compare", str(base), str(other)]) == 3
    assert "no metric in common" in capsys.readouterr().err
