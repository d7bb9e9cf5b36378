"""Runs that are killed, interrupted, capped or faulty: no paid answer is lost, and none is bought twice."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.installed import TRILITH
from support.paid_server import Shop, open_shop

import trilith_evals as evals
from trilith.cli import main
from trilith.errors import DataError
from trilith.money import PICO_PER_USD
from trilith_evals import Case, Means, Output, Paid, Threshold

CASES = [{"id": f"c{i}", "input": f"q{i}", "expected": f"q{i}"} for i in range(40)]
CENT = PICO_PER_USD // 100


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        yield opened


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    rows = "".join(json.dumps(row) + "\n" for row in CASES)
    (tmp_path / "cases.jsonl").write_text(rows, encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(
        "suites: [{name: s, target: {model: tiny}, data: cases.jsonl, scorers: [{scorer: exact}]}]\n",
        encoding="utf-8",
    )
    return tmp_path / "evals.yaml"


def ran(shop: Shop, cases: list[dict[str, Any]] = CASES, **options: Any) -> evals.Report:
    options.setdefault("scorers", ["exact"])
    return evals.run("tiny", cases, base_url=shop.url, api_key="k", **options)


def command(suite: Path, shop: Shop, *more: str) -> subprocess.Popen[str]:
    run = ["eval", "run", str(suite), "--base-url", shop.url, "--api-key", "k", *more]
    return subprocess.Popen(
        [sys.executable, "-c", f"from trilith.cli import main; raise SystemExit(main({run!r}))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def wait_until_sold(shop: Shop, n: int) -> None:
    until = time.monotonic() + 30
    while shop.sold.total() < n:
        assert time.monotonic() < until
        time.sleep(0.01)


def lines(path: Path) -> set[str]:
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines()
    return {record["value"]["text"] for line in whole if "key" in (record := json.loads(line))}


def test_a_killed_run_is_resumed_and_no_answer_in_the_journal_is_bought_again(
    suite: Path, shop: Shop, tmp_path: Path
) -> None:
    shop.delay_s, journal = 0.05, tmp_path / "j.jsonl"
    with command(suite, shop, "--journal", str(journal)) as process:
        wait_until_sold(shop, 10)
        process.send_signal(signal.SIGKILL)
    kept = lines(journal)
    time.sleep(0.2)
    before = shop.sold.copy()
    assert 0 < len(kept) < 40
    args = ["--base-url", shop.url, "--api-key", "k", "--journal", str(journal)]
    assert main(["eval", "run", str(suite), *args]) == 0
    assert all(shop.sold[question] == before[question] for question in kept)
    assert len(shop.sold) == 40
    assert lines(journal) == set(shop.sold)


def test_an_interrupted_run_reports_what_is_done_and_says_how_to_go_on(
    suite: Path, shop: Shop, tmp_path: Path
) -> None:
    shop.delay_s, report = 0.05, tmp_path / "r.json"
    with command(suite, shop, "--json", str(report)) as process:
        wait_until_sold(shop, 6)
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "interrupted; the same command goes on" in told
    (found,) = json.loads(report.read_text(encoding="utf-8"))["suites"]
    assert 0 < found["figures"][0]["scored"] < 40 == len(found["rows"])
    assert main(["eval", "run", str(suite), "--base-url", shop.url, "--api-key", "k"]) == 0
    assert not list((tmp_path / ".trilith").rglob("*.jsonl"))


def test_a_torn_last_line_is_dropped_and_asked_again(shop: Shop, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    ran(shop, means=Means(journal=journal))
    journal.write_bytes(journal.read_bytes()[:-9])
    (found,) = ran(shop, means=Means(journal=journal)).suites
    assert shop.sold.total() == 41
    assert found.spend
    assert (found.spend.kept, found.spend.total_pico_usd) == (39, 40 * CENT)


def test_the_journal_of_another_suite_is_refused(shop: Shop, tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    ran(shop, means=Means(journal=journal))
    with pytest.raises(DataError, match="of another suite"):
        ran(shop, CASES[:3], means=Means(journal=journal))
    assert ran(shop, CASES[:3], means=Means(journal=journal, fresh=True)).exit_code == 0


@pytest.mark.parametrize("ceiling", [None, CENT])
def test_a_cap_is_kept_and_a_larger_one_goes_on(shop: Shop, tmp_path: Path, ceiling: int | None) -> None:
    def bought(cents: int) -> evals.Report:
        means = Means(cents * CENT, max_call_cost_pico_usd=ceiling, journal=tmp_path / "j.jsonl")
        return ran(shop, means=means, concurrency=8)

    (found,) = (capped := bought(10)).suites
    assert capped.exit_code == 3
    assert found.stopped
    assert "cost cap of 0.10 USD" in found.stopped.reason
    assert shop.sold.total() == (10 if ceiling else 9)
    assert found.spend
    assert found.spend.total_pico_usd == shop.sold.total() * CENT
    assert bought(50).exit_code == 0
    assert shop.sold.total() == 40


def test_a_cap_without_prices_is_refused_unless_a_ceiling_is_stated(shop: Shop) -> None:
    shop.price = None
    (found,) = ran(shop, means=Means(10 * CENT)).suites
    assert found.stopped
    assert "does not say what a call costs" in found.stopped.reason
    assert shop.sold.total() == 1
    (found,) = ran(shop, means=Means(10 * CENT, max_call_cost_pico_usd=CENT)).suites
    assert shop.sold.total() == 11
    assert found.spend
    assert found.spend.unpriced == 10


def test_a_judges_calls_are_under_the_same_cap_and_in_the_same_journal(shop: Shop, tmp_path: Path) -> None:
    judged = []

    async def judge(case: Case, output: Output) -> float:
        async def call() -> Paid:
            judged.append(case.id)
            return Paid(1, CENT)

        return float(str((await evals.paid(["judge", output.text], call)).value))

    for cents in (20, 200):
        means = Means(cents * CENT, journal=tmp_path / "j.jsonl")
        (found,) = ran(shop, scorers=[judge], means=means).suites
        assert found.spend
        assert found.spend.total_pico_usd <= cents * CENT
    assert sorted(judged) == sorted(case["id"] for case in CASES)
    assert found.spend
    assert found.spend.scorers_pico_usd == found.spend.target_pico_usd == 40 * CENT


def test_repeats_are_distinct_in_cache_and_journal(shop: Shop, tmp_path: Path) -> None:
    ran(shop, CASES[:5], repeats=3, means=Means(cache=tmp_path))
    assert set(shop.sold.values()) == {3}
    (found,) = ran(shop, CASES[:5], repeats=4, means=Means(cache=tmp_path)).suites
    assert set(shop.sold.values()) == {4}
    assert found.spend
    assert (found.spend.kept, found.spend.total_pico_usd) == (15, 5 * CENT)
    assert sum(row.output is not None and row.output.cached for row in found.rows) == 15


def test_every_row_is_accounted_for_when_a_fifth_of_the_calls_fail(shop: Shop) -> None:
    def fault(question: str, nth: int) -> int | str | None:
        number = int(question[1:])
        if number == 7:
            return "hang"
        faults: dict[int, int | str] = {0: 500, 1: "broken"}
        return faults.get(number % 10) if nth == 0 else None

    shop.fault = fault
    report = ran(shop, concurrency=16, timeout_s=1.5, thresholds=[Threshold("exact", min=0.9)])
    (found,) = report.suites
    (figure,) = found.figures
    assert (len(found.rows), figure.scored, figure.infrastructure) == (40, 39, 1)
    assert report.exit_code == 0
    assert all(n == 2 for q, n in shop.asked.items() if int(q[1:]) % 10 < 2)


def test_a_tenth_that_stays_broken_could_not_run_and_a_bad_model_fails(shop: Shop) -> None:
    gate = [Threshold("exact", min=0.5)]
    shop.fault = lambda question, nth: 503 if question.endswith("3") else None
    shop.headers = {"retry-after-ms": "1"}
    assert ran(shop, thresholds=gate).exit_code == 3
    shop.fault, shop.answer = (lambda question, nth: None), (lambda question: "no")
    assert ran(shop, thresholds=gate).exit_code == 1


def test_a_server_that_asks_for_less_gets_fewer_calls_at_a_time(shop: Shop) -> None:
    shop.delay_s, shop.headers = 0.01, {"retry-after-ms": "20"}
    shop.fault = lambda question, nth: 429 if shop.under_way > 4 else None
    (found,) = ran(shop, concurrency=16, means=Means(max_retries=8)).suites
    assert found.figures[0].scored == 40
    assert found.spend
    assert found.spend.calls == shop.asked.total()


def test_repeats_and_pass_at_k_are_the_same_after_a_resume(shop: Shop, tmp_path: Path) -> None:
    lucky = random.Random(3)
    answers: dict[tuple[str, int], bool] = {}

    def answer(question: str) -> str:
        nth = shop.sold[question]
        return question if answers.setdefault((question, nth), lucky.random() < 0.5) else "no"

    shop.answer = answer
    options: dict[str, Any] = {"repeats": 3, "k": {"exact": 2}, "concurrency": 1}
    for cents in (17, 43, 500):
        report = ran(shop, CASES[:20], means=Means(cents * CENT, CENT, journal=tmp_path / "j"), **options)
    assert shop.sold.total() == 60
    (found,) = report.suites
    right = {(row.case.id, row.repeat): row.scores["exact"].value for row in found.rows}
    assert [right[f"c{i}", r] for i in range(20) for r in range(3)] == [
        float(answers[f"q{i}", r]) for i in range(20) for r in range(3)
    ]
    wins = [sum(answers[f"q{i}", n] for n in range(3)) for i in range(20)]
    (one,) = found.repeated
    by_name = {figure.metric: figure.estimate for figure in one.figures}
    passed = [1 - math.comb(3 - won, 2) / math.comb(3, 2) for won in wins]
    assert by_name["exact pass@2"]
    assert by_name["exact pass@2"].value == pytest.approx(sum(passed) / 20)


def test_a_target_that_fails_on_some_rows_passes_with_its_coverage_told_and_fails_below_it() -> None:
    cases = [{"id": str(i), "input": i, "expected": "yes"} for i in range(400)]
    for share, code in ((0.03, 0), (0.08, 1)):
        rng = random.Random(5)
        bad = {i for i in range(400) if rng.random() < share}

        def target(number: int, bad: set[int] = bad) -> str:
            if number in bad:
                raise KeyError(number)
            return "yes"

        report = evals.run(target, cases, ["exact"], thresholds=[Threshold("exact", min=0.9)])
        ((figure,),) = [suite.figures for suite in report.suites]
        assert report.exit_code == code
        assert (figure.scored, figure.unscored) == (400 - len(bad), len(bad))
        assert figure.reasons == {"KeyError": len(bad)}
        assert figure.bounds
        assert figure.bounds[0] == pytest.approx(1 - len(bad) / 400)


def installed(suite: Path, shop: Shop, *more: str) -> subprocess.CompletedProcess[str]:
    command = [TRILITH, "eval", "run", str(suite), "--base-url", shop.url, "--api-key", "k", *more]
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | path, timeout=60)


def test_the_installed_command_keeps_a_cap_and_goes_on(suite: Path, shop: Shop) -> None:
    capped = installed(suite, shop, "--max-cost", "0.10")
    assert capped.returncode == 3
    assert "cost cap of 0.10 USD is reached" in capped.stdout
    assert shop.sold.total() <= 10
    assert installed(suite, shop, "--max-cost", "1").returncode == 0
    assert shop.sold.total() == 40
    refused = installed(suite, shop, "--max-cost", "nan")
    assert refused.returncode != 0
    assert "nan is not an amount of US dollars above 0" in refused.stderr
    assert not capped.stderr, "the line that counts is for terminals"


def test_the_installed_command_keeps_answers_between_runs(suite: Path, shop: Shop, tmp_path: Path) -> None:
    for _ in range(2):
        report = tmp_path / "r.json"
        done = installed(suite, shop, "--cache", str(tmp_path / "kept"), "--json", str(report))
        assert done.returncode == 0
    assert shop.sold.total() == 40
    (found,) = json.loads(report.read_text(encoding="utf-8"))["suites"]
    assert (found["spend"]["kept"], found["spend"]["calls"]) == (40, 0)
