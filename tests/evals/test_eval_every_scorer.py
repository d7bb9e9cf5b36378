"""Whatever a case and an output look like, every built-in scorer says something about them."""

from __future__ import annotations

from typing import Any

import pytest

from trilith_evals import Case, Output, Score, State, run
from trilith_evals.scorer import BatchScorer, build, built_in

CONVERSATION = [
    {"role": "user", "content": "Where is the Louvre?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "And the Prado?"},
]
PARAMS: dict[str, dict[str, Any]] = {"regex": {"pattern": "x"}}
LIGHT = sorted(set(built_in()) - {"semantic", "ragas", "faithful", "faithfulness"})
"""The others load a model, and have tests of their own."""


def scores(name: str, case: Case, output: Output) -> list[Score]:
    scorer = build(name, PARAMS.get(name, {}))
    if isinstance(scorer, BatchScorer):
        return list(scorer.score_all([(case, output)]))
    report = run(lambda _: output, [case], [scorer])
    return list(report.suites[0].rows[0].scores.values())


@pytest.mark.parametrize("name", LIGHT)
def test_any_expectation_and_any_answer_in_a_conversation_is_scored_or_says_why_not(name: str) -> None:
    for expected in (None, [], float("nan"), [None, float("nan")], "", "Madrid", 3, ["a", "b"]):
        for output in (Output(), Output(text="In Madrid."), Output(text="  \n")):
            for score in scores(name, Case("1", CONVERSATION, expected), output):
                assert score.state is State.SCORED or score.reason
                assert "raised" not in score.reason


@pytest.mark.parametrize("name", ["exact", "match", "f1", "edit", "bleu", "corpus_bleu", "chrf", "rouge"])
def test_an_expected_answer_that_is_nan_is_none(name: str) -> None:
    assert scores(name, Case("1", "q", float("nan")), Output(text="nan"))[0].state is State.UNSCORED
