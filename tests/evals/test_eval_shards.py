"""Suites that several workers run: one cap, one journal, rows in order. Ray itself where it is installed."""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.paid_server import Shop, open_shop

import trilith_evals as evals
from trilith import AsyncClient
from trilith.errors import MissingExtra
from trilith.money import PICO_PER_USD
from trilith_evals import Means, Threshold
from trilith_evals.runner import Suite
from trilith_evals.shards import Bench, Event, Part, Shards
from trilith_evals.target import ModelTarget

CASES = [{"id": f"c{i}", "input": f"q{i}", "expected": f"q{i}"} for i in range(40)]
CENT = PICO_PER_USD // 100


class Here:
    """A worker in this process, which gets all it is given through pickle, as one elsewhere does."""

    def __init__(self, suite: Suite, workers: int) -> None:
        self.bench, self.parts = Bench(suite, workers), 0

    async def work(self, part: Part) -> AsyncIterator[list[Event]]:
        self.parts += 1
        async for events in self.bench.work(pickle.loads(pickle.dumps(part))):
            yield pickle.loads(pickle.dumps(events))

    async def stop(self) -> None:
        self.bench.stop()


class Crew:
    def __init__(self, workers: int = 3) -> None:
        self.count = workers
        self.workers: list[Here] = []

    def shared(self, answers: dict[str, dict[str, Any]]) -> Any:
        return dict(answers)

    @contextlib.asynccontextmanager
    async def hire(self, suite: Suite, shards: int) -> AsyncIterator[Sequence[Here]]:
        self.workers = [Here(suite, self.count) for _ in range(min(self.count, shards))]
        yield self.workers


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


def ran(shop: Shop, crew: Crew | None = None, cases: list[dict[str, Any]] = CASES, **means: Any) -> Any:
    executor = Shards(crew or Crew(), workers=3)
    options = means.pop("options", {})
    report = evals.run(
        "tiny",
        cases,
        ["exact"],
        base_url=shop.url,
        api_key="k",
        means=Means(executor=executor, **means),
        concurrency=6,
        **options,
    )
    return report


def test_rows_are_the_same_as_in_one_process_and_in_the_same_order(shop: Shop) -> None:
    crew = Crew()
    spread = ran(shop, crew, options={"repeats": 2})
    alone = evals.run("tiny", CASES, ["exact"], base_url=shop.url, api_key="k", repeats=2)
    (one,), (other,) = spread.suites, alone.suites
    assert [(r.case.id, r.repeat) for r in one.rows] == [(r.case.id, r.repeat) for r in other.rows]
    assert one.figures == other.figures
    assert all(worker.parts for worker in crew.workers)
    assert set(shop.sold.values()) == {4}
    assert one.spend == other.spend
    assert one.spend.total_pico_usd == 80 * CENT


@pytest.mark.parametrize("ceiling", [None, CENT])
@pytest.mark.parametrize("cents", [1, 2, 7, 25])
def test_one_cap_holds_for_all_workers_and_a_larger_one_goes_on(
    shop: Shop, tmp_path: Path, ceiling: int | None, cents: int
) -> None:
    def bought(cap: int) -> Any:
        journal = tmp_path / "j.jsonl"
        return ran(shop, max_cost_pico_usd=cap * CENT, max_call_cost_pico_usd=ceiling, journal=journal)

    (found,) = (capped := bought(cents)).suites
    assert capped.exit_code == 3
    assert found.stopped.reason.startswith(f"the cost cap of 0.{cents:02} USD is reached")
    assert cents - 1 <= shop.sold.total() <= cents
    assert found.spend.total_pico_usd == shop.sold.total() * CENT
    assert bought(80).exit_code == 0
    assert shop.sold.total() == 40


def test_what_a_part_has_answered_before_its_money_was_out_is_not_bought_again(shop: Shop) -> None:
    assert ran(shop, max_cost_pico_usd=41 * CENT).exit_code == 0
    assert shop.sold.total() == 40


def test_a_finished_journal_asks_nothing(shop: Shop, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    ran(shop, journal=journal)
    (found,) = ran(shop, journal=journal).suites
    assert shop.sold.total() == 40
    assert (found.spend.kept, found.spend.calls) == (40, 0)


def test_a_part_that_cannot_be_begun_ends_the_run_instead_of_being_waited_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(bench: Bench, part: Part, told: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(Bench, "_purse", refuse)
    with pytest.raises(MemoryError, match="no room"):
        ran(shop)
    assert shop.asked.total() == 0


def test_the_time_of_a_run_ends_all_workers(shop: Shop) -> None:
    shop.delay_s = 0.3
    (found,) = ran(shop, run_timeout_s=0.5).suites
    assert found.stopped.reason == "the run's 0.5 s are over"
    assert 0 < found.figures[0].scored < 40 == len(found.rows)


def test_a_wrong_key_stops_all_workers(shop: Shop) -> None:
    shop.fault = lambda question, nth: 401
    (found,) = ran(shop).suites
    assert found.stopped.reason == "AuthenticationError 401"
    assert shop.asked.total() < 40


async def test_a_client_travels_by_its_address_and_one_with_a_pool_of_its_own_does_not(shop: Shop) -> None:
    client = AsyncClient(shop.url, "k", timeout_s=7, default_headers={"a": "b"})
    target = pickle.loads(pickle.dumps(ModelTarget(client, "tiny", system="be brief")))
    report = await evals.arun(target, CASES[:3], ["exact"], thresholds=[Threshold("exact", min=1)])
    assert report.exit_code == 0
    await target.aclose()
    import httpx

    with pytest.raises(TypeError, match="cannot be sent"):
        pickle.dumps(AsyncClient(shop.url, "k", http_client=httpx.AsyncClient()))


def test_ray_runs_a_suite_and_keeps_the_cap(shop: Shop, tmp_path: Path) -> None:
    from trilith_evals.ray_crew import executor

    made, journal = executor(2), tmp_path / "j.jsonl"
    for cents in (10, 80):
        means = Means(cents * CENT, CENT, executor=made, journal=journal)
        report = evals.run("tiny", CASES, ["exact"], base_url=shop.url, api_key="k", means=means)
        assert shop.sold.total() == min(cents, 40)
    assert report.exit_code == 0


def test_without_ray_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    from trilith_evals.ray_crew import executor

    with pytest.raises(MissingExtra, match=r"pip install 'trilith\[ray\]'"):
        executor()
