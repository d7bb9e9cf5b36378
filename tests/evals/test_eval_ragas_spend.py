"""What ragas's own calls cost in a run: under its cap, in its journal and cache, from a thread."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.paid_server import Shop, open_shop

import trilith_evals as evals
from trilith.money import PICO_PER_USD
from trilith_evals import Case, Means, Output, Paid, Score, Threshold
from trilith_evals.dataset import from_rows
from trilith_evals.report import SuiteReport
from trilith_evals.runner import Suite, run_suite
from trilith_evals.scorers.ragas_metric import Ragas
from trilith_evals.target import CallableTarget

CENT = PICO_PER_USD // 100
ROWS = [{"id": f"c{n}", "input": f"When {n}?", "contexts": f"{n}: it opened in 1889."} for n in range(6)]
PER_ROW = 2
"""Calls of Faithfulness: the answer's statements, and the verdicts on them."""

pytestmark = [
    # Third parties' own deprecations, met while they are imported.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*ragas/uuid.json"),
]


def said(prompt: str) -> str:
    if "verdict" in prompt:
        return json.dumps({"statements": [{"statement": "s", "reason": "r", "verdict": 1}]})
    return json.dumps({"statements": ["The tower opened in 1889."]})


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        opened.answer = said
        yield opened


def ran(shop: Shop, rows: Sequence[dict[str, Any]] = ROWS, **options: Any) -> SuiteReport:
    columns = {"retrieved_contexts": "contexts"}
    scorer = Ragas("Faithfulness", columns=columns, model="m", base_url=shop.url, max_retries=0)
    report = evals.run(lambda given: f"1889, as to {given}", rows, [scorer], **options)
    return report.suites[0]


def test_its_calls_are_counted_as_the_judges(shop: Shop) -> None:
    suite = ran(shop)
    assert suite.figures[0].scored == len(ROWS)
    assert suite.spend is not None
    assert (suite.spend.calls, suite.spend.target_pico_usd) == (PER_ROW * len(ROWS), 0)
    assert suite.spend.scorers_pico_usd == shop.sold.total() * CENT == PER_ROW * len(ROWS) * CENT
    assert {row.scores["ragas:Faithfulness"].cost_pico_usd for row in suite.rows} == {PER_ROW * CENT}


@pytest.mark.parametrize("ceiling", [None, CENT])
def test_its_calls_stay_under_the_cap_and_a_larger_one_goes_on(
    shop: Shop, tmp_path: Path, ceiling: int | None
) -> None:
    def bought(cents: int) -> SuiteReport:
        journal = tmp_path / "j.jsonl"
        return ran(shop, means=Means(cents * CENT, max_call_cost_pico_usd=ceiling, journal=journal))

    suite = bought(7)
    assert suite.stopped is not None
    assert "cost cap of 0.07 USD" in suite.stopped.reason
    assert suite.outcome is evals.Outcome.COULD_NOT_RUN
    assert shop.sold.total() == (7 if ceiling else 6)
    assert all(score.infrastructure for row in suite.rows for score in row.scores.values() if not score.value)
    assert bought(50).figures[0].scored == len(ROWS)
    assert shop.sold.total() == PER_ROW * len(ROWS)


def test_its_answers_are_kept_in_the_cache(shop: Shop, tmp_path: Path) -> None:
    for cost in (PER_ROW * len(ROWS) * CENT, 0):
        suite = ran(shop, means=Means(cache=tmp_path))
        assert suite.spend is not None
        assert suite.spend.scorers_pico_usd == cost
        assert sum(row.scores["ragas:Faithfulness"].cost_pico_usd for row in suite.rows) == cost
    assert shop.sold.total() == PER_ROW * len(ROWS)


def test_repeats_of_a_case_are_judged_one_by_one(shop: Shop, tmp_path: Path) -> None:
    suite = ran(shop, ROWS[:2], repeats=3, means=Means(cache=tmp_path))
    assert set(shop.sold.values()) == {3}
    assert len(list(tmp_path.rglob("*.json"))) == 3 * 2 * PER_ROW
    assert suite.figures[0].scored == 6


def test_the_run_tries_again_and_not_openais_client(shop: Shop) -> None:
    shop.fault = lambda prompt, nth: 503 if nth == 0 else "broken" if nth == 1 else None
    shop.headers = {"retry-after-ms": "1"}
    suite = ran(shop, ROWS[:1])
    assert suite.figures[0].scored == 1
    assert set(shop.asked.values()) == {3}
    shop.asked.clear()
    suite = ran(shop, ROWS[:1], means=Means(max_retries=0))
    assert (suite.figures[0].infrastructure, set(shop.asked.values())) == (1, {1})


def test_no_call_is_made_for_a_run_that_was_given_up(shop: Shop) -> None:
    async def stopped() -> SuiteReport:
        def target(given: str) -> str:
            halt.set()
            return "1889"

        halt = asyncio.Event()
        columns = {"retrieved_contexts": "contexts"}
        scorer = Ragas("Faithfulness", columns=columns, model="m", base_url=shop.url)
        suite = Suite("s", CallableTarget(target), from_rows(ROWS), {scorer.name: scorer})
        return await run_suite(suite, stop=halt)

    suite = asyncio.run(stopped())
    assert suite.stopped is not None
    assert shop.asked.total() == 0


class Thrifty:
    """A batch scorer that pays, on a loop of its own, and lets a refusal pass."""

    name = "thrifty"

    def score_all(self, pairs: Sequence[tuple[Case, Output]]) -> list[Score]:
        async def one(case: Case) -> Score:
            async def call() -> Paid:
                await asyncio.sleep(0)
                return Paid(1, CENT)

            found = await evals.paid(["thrifty", case.id], call)
            return evals.scored(float(str(found.value)))

        async def each() -> list[Score]:
            return await asyncio.gather(*(one(case) for case, _ in pairs))

        return asyncio.run(each())


def test_a_batch_scorer_of_ones_own_pays_from_its_thread_and_a_refusal_loses_no_run(tmp_path: Path) -> None:
    def bought(cents: int) -> SuiteReport:
        means = Means(cents * CENT, journal=tmp_path / "j.jsonl")
        gate = [Threshold("thrifty", min=0.5)]
        return evals.run(lambda given: "x", ROWS, [Thrifty()], thresholds=gate, means=means).suites[0]

    suite = bought(4)
    assert (suite.figures[0].infrastructure, suite.outcome) == (len(ROWS), evals.Outcome.COULD_NOT_RUN)
    assert suite.spend is not None
    assert 0 < suite.spend.scorers_pico_usd <= 4 * CENT
    suite = bought(20)
    assert (suite.figures[0].scored, suite.outcome) == (len(ROWS), evals.Outcome.PASS)
    assert suite.spend is not None
    assert suite.spend.scorers_pico_usd == len(ROWS) * CENT
