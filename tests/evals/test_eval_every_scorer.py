"""Whatever a case and an output look like, every built-in scorer says something about them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from trilith_evals import Case, Output, Score, State, scored, unscored
from trilith_evals.scorer import BatchScorer, SuiteMetric, build, built_in

CONVERSATION = [
    {"role": "user", "content": "Where is the Louvre?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "And the Prado?"},
]
GROUPED = ("odds_gap", "opportunity_gap", "parity_gap", "parity_ratio", "worst_group_accuracy")
PARAMS: dict[str, dict[str, Any]] = {"regex": {"pattern": "x"}, **dict.fromkeys(GROUPED, {"by": "language"})}
LIGHT = sorted(set(built_in()) - {"semantic", "ragas", "faithful", "judge"})
"""The others load a model, and have tests of their own."""


def scores(name: str, case: Case, output: Output) -> list[Score]:
    scorer = build(name, PARAMS.get(name, {}))
    if isinstance(scorer, BatchScorer):
        return list(scorer.score_all([(case, output)]))
    if isinstance(scorer, SuiteMetric):
        try:
            return [scored(scorer.loss(*scorer.pair(case, output)))]
        except ValueError as error:
            return [unscored(str(error))]
    found = scorer(case, output)
    assert not inspect.isawaitable(found)  # judges have tests of their own
    return [found if isinstance(found, Score) else scored(found)]


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
