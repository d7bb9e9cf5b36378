"""Scorers of other distributions, found by entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trilith_evals as evals
from trilith.errors import SettingsError
from trilith_evals import scorer

MODULE = """
class Shout:
    name = "shout"

    def __init__(self, marks: int = 1) -> None:
        self.marks = marks

    def __call__(self, case, output):
        return output.text.count("!") >= self.marks
"""


@pytest.fixture
def _shout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another distribution, as pip would have installed it."""
    (tmp_path / "loud.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[trilith.scorers]\nshout = loud:Shout\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    scorer._foreign.cache_clear()
    yield
    scorer._foreign.cache_clear()
    sys.modules.pop("loud", None)


@pytest.mark.usefixtures("_shout")
def test_a_scorer_of_another_distribution_is_found_by_its_name() -> None:
    report = evals.run(lambda text: text + "!", [{"input": "hey"}], ["shout"])
    assert [(f.metric, f.scored) for f in report.suites[0].figures] == [("shout", 1)]


@pytest.mark.usefixtures("_shout")
def test_its_params_are_checked_against_its_annotations() -> None:
    with pytest.raises(SettingsError, match="params.marks is 'two'"):
        scorer.build("shout", {"marks": "two"})
