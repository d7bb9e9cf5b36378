"""Scorers over money, tokens and waiting."""

from __future__ import annotations

import pytest

from trilith.types import Usage
from trilith_evals import Case, Output, State, run
from trilith_evals.scorers.economy import Cost, LatencyQuantile, Tokens

CASE = Case("1", "q")


def test_cost_is_in_dollars_and_unknown_cost_is_not_nothing() -> None:
    assert Cost()(CASE, Output(cost_pico_usd=2_500_000_000)).value == 0.0025
    assert Cost()(CASE, Output()).state is State.ABSTAINED


def test_tokens_are_counted_by_kind() -> None:
    output = Output(usage=Usage(input_tokens=7, output_tokens=3))
    assert [Tokens(kind)(CASE, output).value for kind in ("input", "output", "all")] == [7, 3, 10]
    assert Tokens()(CASE, Output()).state is State.ABSTAINED
    assert [Tokens().name, Tokens("all").name] == ["output_tokens", "tokens"]


def test_a_quantile_of_the_latency_is_one_figure_with_an_interval() -> None:
    outputs = [Output(latency_s=at / 10) for at in range(1, 101)]
    scorer = LatencyQuantile(0.5)
    pairs = [scorer.pair(CASE, output) for output in outputs]
    assert scorer.value([None] * 100, [latency for _, latency in pairs]) == pytest.approx(5.05)
    figure = run(lambda _: "x", [Case(str(at), "q") for at in range(9)], [scorer]).suites[0].figures[0]
    assert figure.metric == "latency_p50_s"
    assert figure.estimate is not None
    assert figure.estimate.low is not None
    assert not figure.higher_is_better


def test_an_answer_that_was_kept_was_not_waited_for() -> None:
    with pytest.raises(ValueError, match="kept from an earlier run"):
        LatencyQuantile().pair(CASE, Output(cached=True))
    with pytest.raises(ValueError, match="share"):
        LatencyQuantile(1)
