"""What judges cost: every call under the run's cap, in its journal and its cache, and none bought twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paid_server import Shop, open_shop

import trilith_evals as evals
from trilith import AsyncClient
from trilith.cli import main
from trilith.money import PICO_PER_USD
from trilith_evals import Case, Means, Output
from trilith_evals.judging import prompt
from trilith_evals.judging.scorer import JudgeScorer

CENT = PICO_PER_USD // 100
ROWS = [{"id": f"c{n}", "input": f"question {n}?", "rival": "Lyon"} for n in range(10)]
ROWS[0]["rival"] = "Paris, as to question 0?"  # as the answer: both orders ask the same, and are two samples
VERDICT = json.dumps({"reasons": "it is so", "verdict": "first"})
SUITE = """\
suites:
  - name: pairs
    target: {model: tiny}
    data: cases.jsonl
    scorers:
      - scorer: judge
        params: {model: one, panel: [two], repeats: 2, kind: pair, other: rival, rubric: The right one.}
"""
JUDGE = """\
judge: {model: one, rubric: It names the right capital., panel: [two]}
data: {file: labelled.jsonl, human: human}
"""
PER_PAIR = 2 * 2 * 2
"""Calls: both orders, two models, each twice."""
ALL = len(ROWS) * (1 + PER_PAIR) + 2 * PER_PAIR
"""The target's answers, the judges', and the ones that were asked for again."""


def said(question: str) -> str:
    if "<<<begin" not in question:
        return VERDICT if question == prompt.AGAIN else f"Paris, as to {question}"
    return "hm" if "question 3?" in question or "question 7?" in question else VERDICT


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as opened:
        opened.answer = said
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    people = [{**row, "output": "Paris", "human": "no" if n % 2 else "yes"} for n, row in enumerate(ROWS)]
    for name, rows in (("cases", ROWS), ("labelled", people)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "evals.yaml").write_text(SUITE, encoding="utf-8")
    (tmp_path / "judge.yaml").write_text(JUDGE, encoding="utf-8")
    return tmp_path


def told(folder: Path, shop: Shop, *more: str) -> tuple[int, Any]:
    """Run the suite here; return the exit code and the report."""
    address = ["--base-url", shop.url, "--api-key", "k", "--json", str(folder / "r.json")]
    code = main(["eval", "run", str(folder / "evals.yaml"), *address, *more])
    return code, json.loads((folder / "r.json").read_text("utf-8"))["suites"][0]


def killed(shop: Shop, after: int, *arguments: str) -> None:
    """Start a command of its own, and kill it when so many answers are sold."""
    run = ["eval", *arguments, "--base-url", shop.url, "--api-key", "k"]
    shop.delay_s = 0.02
    with subprocess.Popen(
        [sys.executable, "-c", f"from trilith.cli import main; raise SystemExit(main({run!r}))"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        until = time.monotonic() + 60
        while shop.sold.total() < after and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # what was under way is sold by now
    shop.delay_s = 0.0


def kept(journal: Path) -> int:
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return len({record["key"] for line in whole if "key" in (record := json.loads(line))})


def test_a_killed_run_buys_no_verdict_again_that_is_in_the_journal(folder: Path, shop: Shop) -> None:
    journal = folder / "j.jsonl"
    killed(shop, 40, "run", str(folder / "evals.yaml"), "--journal", str(journal))
    before, there = shop.sold.total(), kept(journal)
    assert 20 < there < ALL
    code, suite = told(folder, shop, "--journal", str(journal))
    assert code == 0
    assert shop.sold.total() - before == ALL - there
    assert (suite["spend"]["kept"], suite["spend"]["calls"]) == (there, ALL - there)
    assert suite["spend"]["scorers_pico_usd"] == (ALL - len(ROWS)) * CENT
    assert suite["figures"][0]["scored"] == len(ROWS)
    assert kept(journal) == ALL
    costs = {row["id"]: row["scores"]["judge"]["cost_pico_usd"] for row in suite["rows"]}
    assert costs == {f"c{n}": PER_PAIR * CENT * (2 if n in (3, 7) else 1) for n in range(10)}


@pytest.mark.parametrize("ceiling", ["", "    max_call_cost_usd: 0.01\n"])
def test_verdicts_stay_under_the_cap_and_a_larger_one_goes_on(folder: Path, shop: Shop, ceiling: str) -> None:
    (folder / "evals.yaml").write_text(SUITE + ceiling, encoding="utf-8")
    code, suite = told(folder, shop, "--max-cost", "0.30")
    assert code == 3
    assert "cost cap of 0.30 USD" in suite["stopped"]["reason"]
    assert shop.sold.total() == (30 if ceiling else 29)
    assert suite["spend"]["target_pico_usd"] + suite["spend"]["scorers_pico_usd"] == shop.sold.total() * CENT
    assert told(folder, shop, "--max-cost", "5")[0] == 0
    assert shop.sold.total() == ALL


def test_a_cached_verdict_costs_nothing_and_every_sample_has_its_own(folder: Path, shop: Shop) -> None:
    told(folder, shop, "--cache", str(folder / "cache"))
    assert shop.sold.total() == ALL
    _, suite = told(folder, shop, "--cache", str(folder / "cache"))
    assert shop.sold.total() == ALL
    assert (suite["spend"]["kept"], suite["spend"]["scorers_pico_usd"]) == (ALL, 0)
    assert all("cost_pico_usd" not in row["scores"]["judge"] for row in suite["rows"])


def test_a_cap_below_what_money_is_counted_in_is_still_a_cap(folder: Path, shop: Shop) -> None:
    assert told(folder, shop, "--max-cost", "0.0000000000001")[0] == 3
    assert shop.sold.total() <= 1  # the first call tells prices


async def test_a_cap_without_prices_stops_at_the_first_verdict(shop: Shop) -> None:
    shop.price = None
    async with AsyncClient(shop.url, "k") as client:
        scorer = JudgeScorer("one", "It is right.", client=client)
        report = await evals.arun(lambda given: "x", ROWS, [scorer], means=Means(10 * CENT))
    (suite,) = report.suites
    assert suite.stopped is not None
    assert "does not say what a call costs" in suite.stopped.reason
    assert shop.sold.total() == 1


async def test_under_a_run_the_run_tries_again_and_alone_the_client_does(shop: Shop) -> None:
    shop.answer = lambda question: json.dumps({"reasons": "", "verdict": "yes"})
    shop.fault = lambda question, nth: 503 if nth < 2 else None
    shop.headers = {"retry-after-ms": "1"}
    async with AsyncClient(shop.url, "k", max_retries=2) as client:
        scorer = JudgeScorer("one", "It is right.", client=client)
        assert (await scorer(Case("c", "alone?"), Output(text="x"))).value == 1
        assert set(shop.asked.values()) == {3}
        for retries, asked, scored in ((0, 1, 0), (1, 2, 1)):
            shop.asked.clear()
            shop.fault = lambda question, nth: 503 if nth < 1 else None
            means = Means(max_retries=retries)
            (suite,) = (await evals.arun(lambda given: "x", ROWS[:1], [scorer], means=means)).suites
            assert (shop.asked.total(), suite.figures[0].scored) == (asked, scored)
    assert suite.spend is not None
    assert (suite.spend.calls, suite.spend.scorers_pico_usd) == (2, CENT)


async def test_a_judge_that_hangs_is_asked_again_by_the_run(shop: Shop) -> None:
    shop.answer = lambda question: json.dumps({"reasons": "", "verdict": "yes"})
    shop.fault = lambda question, nth: "hang" if nth < 1 else None
    async with AsyncClient(shop.url, "k") as client:
        scorer = JudgeScorer("one", "It is right.", client=client, timeout_s=0.3)
        (suite,) = (await evals.arun(lambda given: "x", ROWS[:1], [scorer], timeout_s=30)).suites
    assert (shop.asked.total(), suite.figures[0].scored) == (2, 1)


def calibrated(folder: Path, shop: Shop, *more: str) -> int:
    address = ["--base-url", shop.url, "--api-key", "k"]
    return main(["eval", "calibrate", str(folder / "judge.yaml"), *address, *more])


def yes_or_no(question: str) -> str:
    return json.dumps({"reasons": "", "verdict": "no" if "question 3?" in question else "yes"})


def test_a_calibration_stops_at_its_cap_and_goes_on(
    folder: Path, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.answer = yes_or_no
    assert calibrated(folder, shop, "--max-cost", "0.09") == 3
    assert "cost cap of 0.09 USD" in capsys.readouterr().err
    assert shop.sold.total() <= 9
    assert not (folder / "judge.certificate.json").exists()
    assert calibrated(folder, shop, "--max-cost", "1", "--max-call-cost", "0.01") == 0
    assert shop.sold.total() == 20
    assert "0.20 USD" in capsys.readouterr().out
    assert not list((folder / ".trilith").rglob("*.jsonl"))


def test_a_killed_calibration_buys_no_verdict_again(folder: Path, shop: Shop) -> None:
    shop.answer, journal = yes_or_no, folder / "j.jsonl"
    killed(shop, 8, "calibrate", str(folder / "judge.yaml"), "--journal", str(journal), "--concurrency", "2")
    before, there = shop.sold.total(), kept(journal)
    assert 0 < there < 20
    assert calibrated(folder, shop, "--journal", str(journal)) == 0
    assert shop.sold.total() - before == 20 - there


def test_a_calibration_keeps_its_verdicts_for_another_one(folder: Path, shop: Shop) -> None:
    shop.answer = yes_or_no
    for _ in range(2):
        assert calibrated(folder, shop, "--cache", str(folder / "cache")) == 0
    assert shop.sold.total() == 20


@pytest.mark.parametrize("amount", ["0", "-1", "much", "nan"])
def test_a_cap_is_an_amount_of_money(folder: Path, amount: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["eval", "calibrate", str(folder / "judge.yaml"), f"--max-cost={amount}"])
    assert "not an amount of US dollars above 0" in capsys.readouterr().err
