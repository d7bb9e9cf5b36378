"""The section `score`: sampled answers of logs and gateways are scored once, within the day's money."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.gateway import Running
from support.installed import TRILITH, until
from support.paid_server import Shop, open_shop

from trilith.cli import main
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_evals import Case, Output
from trilith_evals.online import Monitor, MonitorSettings, OnlineScorer, Record, Sampler
from trilith_gateway.tracing import SqliteSpanExporter, database

DAY_S = 86_400.0
JUDGE = "{scorer: judge, params: {model: big, rubric: The answer is right.}}"


@pytest.fixture
def shop() -> Iterator[Shop]:
    with open_shop() as shop:
        shop.answer = lambda question: json.dumps({"reasons": "so it is", "verdict": "yes"})
        yield shop


def write(folder: Path, score: str, *, answers: int = 6, sources: str = "log.jsonl", more: str = "") -> None:
    (folder / "monitor.yaml").write_text(
        f"sources: [{sources}]\nmodel: assistant\nprometheus: out.prom\n{more}score:\n{score}\n",
        encoding="utf-8",
    )
    with (folder / "log.jsonl").open("w", encoding="utf-8") as file:
        for n in range(answers):
            asked = {"input": f"Question {n}?", "answer": f"Answer {n}.", "features": {"model": "assistant"}}
            file.write(json.dumps({"id": f"r{n}", "at": 100.0 + n, "release": f"v{n % 2}", **asked}) + "\n")


def look(folder: Path, day: float = 0.5) -> int:
    return main(["eval", "monitor", str(folder / "monitor.yaml"), "--once", "--now", str(day * DAY_S)])


def state(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "monitor.state.json").read_text(encoding="utf-8"))
    return found


def values(folder: Path) -> dict[str, dict[str, float]]:
    return {row["id"]: row["values"] for row in state(folder)["monitor"]["open"]}


def spent(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "monitor.spend.db")) as connection:
        return int(connection.execute("select sum(pico_usd) from spend").fetchone()[0])


def test_a_judge_scores_what_a_log_says_and_nothing_is_paid_a_second_time(tmp_path: Path, shop: Shop) -> None:
    write(tmp_path, f"  sample: 1\n  base_url: {shop.url}\n  scorers: [{JUDGE}]")
    assert look(tmp_path) == 2
    assert {id: found["judge"] for id, found in values(tmp_path).items()} == {f"r{n}": 1.0 for n in range(6)}
    look(tmp_path)
    assert sum(shop.sold.values()) == 6
    assert "trilith_monitor_scored_total" in (tmp_path / "out.prom").read_text(encoding="utf-8")


def test_question_and_answer_are_not_in_the_state(tmp_path: Path) -> None:
    write(tmp_path, "  sample: 1\n  scorers: [{scorer: contains, params: {}}]")
    look(tmp_path)
    assert "Question" not in (tmp_path / "monitor.state.json").read_text(encoding="utf-8")


def test_the_days_budget_is_kept_and_the_rest_is_unpaid(tmp_path: Path, shop: Shop) -> None:
    money = "  daily_usd: 0.035\n  answer_usd: 0.01\n"
    write(tmp_path, f"{money}  sample: 1\n  base_url: {shop.url}\n  scorers: [{JUDGE}]")
    look(tmp_path)
    assert (sum(shop.sold.values()), spent(tmp_path)) == (3, 3 * 10**10)
    assert state(tmp_path)["counts"]["unpaid_total"] == 3


def test_a_judge_that_tells_no_price_is_taken_to_cost_what_was_set_aside(tmp_path: Path, shop: Shop) -> None:
    shop.price = None
    money = "  daily_usd: 0.035\n  answer_usd: 0.01\n"
    write(tmp_path, f"{money}  sample: 1\n  base_url: {shop.url}\n  scorers: [{JUDGE}]")
    look(tmp_path)
    assert (sum(shop.sold.values()), spent(tmp_path)) == (3, 3 * 10**10)


def test_a_killed_look_goes_on_without_paying_for_an_answer_twice(tmp_path: Path, shop: Shop) -> None:
    shop.fault = lambda question, nth: "hang" if "Question 4" in question and not nth else None
    write(tmp_path, f"  sample: 1\n  concurrency: 1\n  base_url: {shop.url}\n  scorers: [{JUDGE}]")
    command = [TRILITH, "eval", "monitor", str(tmp_path / "monitor.yaml")]
    killed = subprocess.Popen([*command, "--now", str(DAY_S / 2)], env={**os.environ})
    until(lambda: sum(shop.asked.values()) == 5, what="the fifth question")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "monitor.state.json").exists()
    look(tmp_path)
    assert set(shop.sold.values()) == {1}
    assert len(shop.sold) == len(values(tmp_path)) == 6
    assert not (tmp_path / "monitor.state.json.scores").exists()


def test_the_spans_of_a_gateway_are_scored_by_name_and_by_a_judge_behind_the_same_gateway(
    tmp_path: Path, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "3"}
    declared = {
        "home": home,
        "telemetry": {"content": True},
        "models": {"echo": chat, "big": {**chat, "price": price}},
    }
    upstreams = {
        "echo": MemoryUpstream(),
        "big": MemoryUpstream(json.dumps({"reasons": "so it is", "verdict": "no"})),
    }
    with Running(Settings.model_validate(declared), upstreams) as gateway:
        for n in range(3):
            assert gateway.chat(f"What is {n}?").status_code == 200
        until(
            lambda: sum(span.name == "chat echo" for span in spans.get_finished_spans()) == 3,
            what="the requests' spans",
        )
        SqliteSpanExporter(database(home)).export(spans.get_finished_spans())
        monkeypatch.setenv("TRILITH_API_KEY", gateway.token)
        (tmp_path / "monitor.yaml").write_text(
            f"sources: [{database(home)}]\nmodel: echo\nscore:\n  sample: 1\n  base_url: {gateway.url}\n"
            "  daily_usd: 1\n  answer_usd: 0.01\n"
            f"  scorers: [{JUDGE}, {{scorer: regex, params: {{pattern: What}}}}]\n",
            encoding="utf-8",
        )
        look(tmp_path, time.time() / DAY_S)
        charged = [row["amount_pico_usd"] for row in gateway.ledger() if row["model"] == "big"]
    assert [(found["judge"], found["regex"]) for found in values(tmp_path).values()] == [(0.0, 1.0)] * 3
    assert spent(tmp_path) == sum(charged) > 0


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (
            "  scorers: [{scorer: judge, params: {model: assistant, rubric: Good.}}]",
            "own answers may be among",
        ),
        ("  daily_usd: 1\n  scorers: [{scorer: contains}]", "daily_usd and answer_usd go together"),
        ("  scorers: [{scorer: r2}]", "figure over a whole suite"),
        ("  scorers: [{scorer: nobody}]", "score.scorers.0: scorer: 'nobody' is not known"),
        ("  scorers: [{scorer: contains}, {scorer: contains}]", "a second time"),
    ],
)
def test_a_wrong_section_is_refused_before_anything_is_paid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], score: str, said: str
) -> None:
    write(tmp_path, score)
    assert look(tmp_path) == 3
    assert said in capsys.readouterr().err


def test_a_stratum_has_its_own_share_and_its_scores_weigh_accordingly() -> None:
    scorer = OnlineScorer(
        {"one": lambda case, output: 1.0}, Sampler(0.25, {("new", ""): 1.0}), lambda r: None
    )
    records = [Record(f"r{n}", 0.0, release="new" if n % 2 else "old") for n in range(400)]
    for record in records:
        scorer.take(Case(record.id, "?"), Output("!"), record)
    scorer.close()
    weights = {(r.release, r.values["sampling_weight"]) for r in records if "one" in r.values}
    assert weights == {("new", 1.0), ("old", 4.0)}
    assert sum("one" in r.values for r in records if r.release == "new") == 200


def test_a_mean_of_scores_speaks_for_all_answers_and_not_for_the_sample() -> None:
    def day(number: int) -> list[Record]:
        rows = []
        for n in range(50):  # 40 of a release of which all are scored, 10 of one of which a tenth is
            new = n < 40
            found = {"judge": 1.0 if new else 0.0, "sampling_weight": 1.0 if new else 10.0}
            rows.append(Record(f"{number}-{n}", number * DAY_S + n, values=found))
        return rows

    settings = MonitorSettings.model_validate({"metrics": [{"name": "judge", "worse": "lower"}]})
    monitor = Monitor(settings, [record for number in range(28) for record in day(number)])
    for record in day(28):
        monitor.observe(record)
    (found,) = (f for f in monitor.advance(29 * DAY_S) if f.source == "metric")
    assert found.value == pytest.approx(40 / 140)
