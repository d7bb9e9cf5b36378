"""Scores of sampled production traffic: which requests, for how much money, and what is dropped."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from trilith.errors import SettingsError
from trilith_evals import Case, Output, Score, State
from trilith_evals.online import DailyBudget, OnlineScorer, Record, Sampler
from trilith_evals.scorer import build

IDS = [f"request-{n}" for n in range(4000)]


def test_the_same_requests_are_chosen_everywhere_and_about_as_many_as_asked() -> None:
    chosen = [id for id in IDS if Sampler(0.1).takes(id)]
    assert chosen == [id for id in IDS if Sampler(0.1).takes(id)]
    assert 320 <= len(chosen) <= 480  # 400 are expected, 4 standard deviations either way


def test_a_smaller_rate_chooses_among_those_of_a_larger_one() -> None:
    small = {id for id in IDS if Sampler(0.05).takes(id)}
    assert small <= {id for id in IDS if Sampler(0.2).takes(id)}


def test_a_release_or_tenant_has_its_own_rate() -> None:
    sampler = Sampler(0.0, {("new", ""): 1.0, ("", "acme"): 1.0, ("new", "quiet"): 0.0})
    assert sampler.takes("a", release="new")
    assert sampler.takes("a", tenant="acme")
    assert not sampler.takes("a", release="new", tenant="quiet")
    assert not sampler.takes("a", release="old", tenant="other")


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="expected 0 to 1"):
        Sampler(1.5)


def test_a_days_budget_is_never_overspent_and_the_next_day_has_its_own(tmp_path: Path) -> None:
    clock = [0.0]
    budget = DailyBudget(tmp_path / "spend.db", 100, lambda: clock[0])
    assert budget.reserve(60) == 0
    assert budget.reserve(60) is None
    budget.settle(0, 60, 10)
    assert budget.spent() == 10
    again = DailyBudget(tmp_path / "spend.db", 100, lambda: clock[0])
    assert again.reserve(91) is None
    clock[0] = 86_400.0
    assert again.reserve(91) == 1


def judge(case: Case, output: Output) -> Score:
    return Score(State.SCORED, 0.5, cost_pico_usd=30)


def test_scores_are_paid_from_the_budget_and_stop_when_it_is_used_up(tmp_path: Path) -> None:
    delivered: list[Record] = []
    budget = DailyBudget(tmp_path / "spend.db", 100)
    scorer = OnlineScorer({"judge": judge}, Sampler(1.0), delivered.append, budget=budget, most_pico_usd=40)
    for n in range(5):
        scorer.observe(Case(f"q{n}", "?"), Output("an answer"), release="r1", tenant="acme")
    scorer.close()
    # 40 are set aside and 30 paid: after two there are 40 left, and after three 10
    assert (len(delivered), scorer.counts.unpaid, budget.spent()) == (3, 2, 90)
    assert (delivered[0].values["judge"], delivered[0].tenant, delivered[0].release) == (0.5, "acme", "r1")


def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    gate = threading.Event()

    def slow(case: Case, output: Output) -> float:
        gate.wait()
        return 1.0

    scorer = OnlineScorer({"slow": slow}, Sampler(1.0), lambda record: None, queue_size=2)
    taken = [scorer.observe(Case(f"q{n}", "?"), Output("x")) for n in range(10)]
    gate.set()
    scorer.close()
    assert taken.count(True) in (2, 3)  # one may be under way already
    assert scorer.counts.dropped == 10 - taken.count(True)


def test_the_scorers_of_a_suite_are_those_of_production() -> None:
    delivered: list[Record] = []
    scorer = OnlineScorer({"contains": build("contains", {})}, Sampler(1.0), delivered.append)
    scorer.observe(Case("q", "?", expected="Ulm"), Output("It is Ulm."))
    scorer.close()
    assert delivered[0].values["contains"] == 1.0


def test_a_scorer_that_fails_leaves_the_row_unscored_and_the_others_scored() -> None:
    def broken(case: Case, output: Output) -> float:
        raise RuntimeError

    delivered: list[Record] = []
    scorer = OnlineScorer({"broken": broken, "judge": judge}, Sampler(1.0), delivered.append)
    scorer.observe(Case("q", "?"), Output("x"))
    scorer.close()
    assert (scorer.counts.scored, scorer.counts.unscored) == (1, 1)
    assert "broken" not in delivered[0].values


def test_a_figure_over_a_suite_cannot_score_one_answer() -> None:
    with pytest.raises(SettingsError, match="figure over a whole suite"):
        OnlineScorer({"r2": build("r2", {})}, Sampler(1.0), lambda record: None)
