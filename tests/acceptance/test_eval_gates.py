"""Suites for all kinds of model gate changes: a worse one turns red, an unchanged one does not."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.installed import Platform

from trilith_evals import contest, recorded
from trilith_evals.gate import Outcome
from trilith_evals.recorded import RecordedSuite

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"
RED, GREEN = 1, 0

CAPITALS = {
    **{"France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid"},
    **{"Portugal": "Lisbon", "Greece": "Athens", "Egypt": "Cairo", "Russia": "Moscow", "China": "Beijing"},
    **{
        "India": "New Delhi",
        "Austria": "Vienna",
        "Hungary": "Budapest",
        "Poland": "Warsaw",
        "Norway": "Oslo",
    },
    **{"Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin"},
    **{"Belgium": "Brussels", "Turkey": "Ankara", "Kenya": "Nairobi", "Peru": "Lima", "Chile": "Santiago"},
    **{"Argentina": "Buenos Aires", "Canada": "Ottawa", "Australia": "Canberra", "Cuba": "Havana"},
    **{"Thailand": "Bangkok", "Vietnam": "Hanoi", "South Korea": "Seoul", "Iraq": "Baghdad"},
    **{"Iran": "Tehran", "Mexico": "Mexico City", "Brazil": "Brasilia", "the Netherlands": "Amsterdam"},
}
CHAT: dict[str, Any] = {
    "name": "chat",
    "target": {"model": "smollm2"},
    "data": "capitals.jsonl",
    "fields": {"input": "question", "expected": "answer"},
    "parameters": {"temperature": 0, "max_tokens": 24},
    "concurrency": 1,  # what is computed together may differ in the last digit
    "scorers": [{"scorer": "contains"}],
}
RAG: dict[str, Any] = {
    "name": "rag",
    "task": "rag",
    "target": {"model": "encyclopedia"},
    "data": str(DEMO / "data" / "encyclopedia_questions.jsonl"),
    "fields": {"input": "question", "expected": "answers", "cluster": "path"},
    "limit": 48,
    "shuffle": True,
    "concurrency": 1,
    "parameters": {"temperature": 0, "max_tokens": 8},
    "scorers": [{"scorer": "recall", "params": {"k": 3}}],
}
PREDICTOR: dict[str, Any] = {
    "name": "predictor",
    "task": "predictor",
    "target": {"model": "bike-demand"},
    "data": str(DEMO / "data" / "bike_requests.jsonl"),
    "fields": {"input": "features", "expected": "label"},
    "concurrency": 8,
    "scorers": [{"scorer": "mae"}],
}


@pytest.fixture(scope="module")
def gated(platform: Platform, key: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A gateway with a good and a worse model of each kind, before the first platform's vLLM."""
    folder = tmp_path_factory.mktemp("gated")
    theirs = yaml.safe_load((DEMO / "trilith.yaml").read_text(encoding="utf-8"))
    trained = theirs["training"]["bike-demand"]
    for name in ("data", "contract"):
        trained[name] = str(DEMO / trained[name])
    chat = {
        "kind": "chat",
        "upstream": {"url": f"{platform.url}/v1", "api_key": key, "model": "smollm2"},
        "price": {"input_usd_per_mtok": "0.02", "output_usd_per_mtok": "0.06"},
    }
    half = folder / "half"
    half.mkdir()
    for document in sorted((DEMO / "documents").iterdir())[::2]:
        shutil.copy(document, half)
    made = Platform(
        folder,
        {
            "models": {
                "smollm2": chat,
                "encyclopedia": {"kind": "rag", "index": "whole", "generator": "smollm2", "top_k": 3},
                "forgetful": {"kind": "rag", "index": "half", "generator": "smollm2", "top_k": 3},
                "bike-demand": {"kind": "predictor", "registered_model": "bike-demand"},
                "outdated": {"kind": "predictor", "registered_model": "outdated"},
            },
            "indexes": {"whole": {"source": str(DEMO / "documents")}, "half": {"source": str(half)}},
            "training": {
                "bike-demand": trained,
                "outdated": {**trained, "test_share": 0.97},  # knows the first three weeks only
            },
        },
    )
    made.command("ingest")
    made.command("train")
    made.start("serve")
    token = made.command("keys", "create", "tests", "--team", "tests", "--quiet")
    made.environment |= {"TRILITH_BASE_URL": made.url, "TRILITH_API_KEY": token}
    yield made
    assert made.stop(signal.SIGINT) == 0


def judged(
    gated: Platform, folder: Path, suite: dict[str, Any], *options: str, expect: int = GREEN, **changed: Any
) -> str:
    """Run a suite as CI does, in a folder of its own; returns what was printed."""
    cases = [
        json.dumps({"id": land, "question": f"What is the capital of {land}?", "answer": city})
        for land, city in CAPITALS.items()
    ]
    (folder / "capitals.jsonl").write_text("\n".join(cases), encoding="utf-8")
    file = folder / "evals.yaml"
    file.write_text(json.dumps({"suites": [{**suite, **changed}]}), encoding="utf-8")
    return gated.command("eval", "run", str(file), *options, expect=expect)


@pytest.fixture(scope="module")
def mains(gated: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder with the runs that changes are held against."""
    kept = tmp_path_factory.mktemp("kept")
    for suite in (CHAT, RAG, PREDICTOR):
        judged(gated, tmp_path_factory.mktemp("main"), suite, "--save-as", "main", "--runs", str(kept))
    return str(kept)


@pytest.mark.parametrize(
    ("suite", "worse"),
    [
        (CHAT, {"system": "Whatever you are asked, answer with the name of a colour."}),
        (RAG, {"target": {"model": "forgetful"}}),
        (PREDICTOR, {"target": {"model": "outdated"}}),
    ],
    ids=["prompt", "retriever", "model"],
)
def test_a_worse_one_turns_the_gate_red(
    gated: Platform, mains: str, tmp_path: Path, suite: dict[str, Any], worse: dict[str, Any]
) -> None:
    options = ("--against", "main", "--runs", mains)
    said = judged(gated, tmp_path, suite, *options, expect=RED, **worse)
    assert "worse" in said


@pytest.mark.parametrize("suite", [CHAT, RAG, PREDICTOR], ids=["prompt", "retriever", "model"])
def test_an_unchanged_one_stays_green(
    gated: Platform, mains: str, tmp_path: Path, suite: dict[str, Any]
) -> None:
    judged(gated, tmp_path, suite, "--against", "main", "--runs", mains)


def test_an_unchanged_one_that_answers_differently_each_time_is_seldom_called_worse(
    gated: Platform, tmp_path: Path
) -> None:
    """Two hundred pairs of runs, drawn from answers at temperature 1; the gate may err once in twenty."""
    warm: dict[str, Any] = {
        "parameters": {"temperature": 1, "max_tokens": 12},
        "repeats": 8,
        "concurrency": 16,
    }
    report = tmp_path / "report.json"
    judged(gated, tmp_path, CHAT, "--json", str(report), **warm)
    told = json.loads(report.read_text(encoding="utf-8"))["suites"][0]
    rng, verdicts = random.Random(7), Counter[bool]()
    for _ in range(200):
        lines = contest.against(*drawn(told, rng, tmp_path))
        verdicts[any(line.check.outcome is Outcome.FAIL for line in lines)] += 1
    assert len({row["output"] for row in told["rows"]}) > 2 * told["cases"]  # it does answer differently
    assert (
        verdicts[True] <= 20
    )  # ten are to be expected at most; more than twenty would be one in five hundred


def drawn(told: dict[str, Any], rng: random.Random, folder: Path) -> list[dict[str, RecordedSuite]]:
    """Return two runs of one answer a case, no answer in both."""
    by_case: dict[str, list[Any]] = {}
    for row in told["rows"]:
        by_case.setdefault(row["id"], []).append(row)
    pairs = [rng.sample(rows, 2) for rows in by_case.values()]
    runs = []
    for at in (0, 1):
        path = folder / f"drawn-{at}.json"
        path.write_text(json.dumps({"suites": [{**told, "rows": [pair[at] for pair in pairs]}]}))
        runs.append(recorded.read(path))
    return runs
