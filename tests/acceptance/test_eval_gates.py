"""Suites for all kinds of model gate changes: a worse one turns red, an unchanged one does not."""

from __future__ import annotations

import json
import random
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

CHAT: dict[str, Any] = {
    "name": "chat",
    "target": {"model": "smollm2"},
    "data": str(DEMO / "data" / "chat_cases.jsonl"),
    "fields": {"input": "question", "expected": "answers"},
    "parameters": {"temperature": 0, "max_tokens": 16},
    "concurrency": 1,  # what is computed together may differ in the last digit
    "scorers": [{"scorer": "contains"}, {"scorer": "semantic"}],
}
RAG: dict[str, Any] = {
    "name": "rag",
    "task": "rag",
    "target": {"model": "encyclopedia"},
    "data": str(DEMO / "data" / "encyclopedia_questions.jsonl"),
    "fields": {"input": "question", "expected": "answers", "cluster": "path"},
    "limit": 48,
    "shuffle": True,
    "concurrency": 4,
    "parameters": {"temperature": 0, "max_tokens": 24},
    "scorers": [{"scorer": "recall", "params": {"k": 3}}, {"scorer": "f1"}],
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
    source = str(DEMO / "documents")
    made = Platform(
        folder,
        {
            "models": {
                "smollm2": chat,
                "encyclopedia": {"kind": "rag", "index": "whole", "generator": "smollm2", "top_k": 3},
                "crumbs": {"kind": "rag", "index": "crumbs", "generator": "smollm2", "top_k": 1},
                "bike-demand": {"kind": "predictor", "registered_model": "bike-demand"},
                "calendar-only": {"kind": "predictor", "registered_model": "calendar-only"},
            },
            "indexes": {
                "whole": {"source": source},
                "crumbs": {"source": source, "chunk_chars": 100, "chunk_overlap_chars": 0},
            },
            "training": {
                "bike-demand": trained,
                "calendar-only": {**trained, "numeric": ["yr", "mnth"], "categorical": ["season"]},
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


def judged(gated: Platform, folder: Path, name: str, suite: dict[str, Any], **changed: Any) -> Path:
    """Run a suite as CI does; returns the recorded run."""
    file, report = folder / f"{name}.yaml", folder / f"{name}.json"
    file.write_text(json.dumps({"suites": [{**suite, **changed}]}), encoding="utf-8")
    gated.command("eval", "run", str(file), "--json", str(report))
    return report


@pytest.fixture(scope="module")
def mains(gated: Platform, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The runs that changes are held against."""
    folder = tmp_path_factory.mktemp("mains")
    return {suite["name"]: judged(gated, folder, suite["name"], suite) for suite in (CHAT, RAG, PREDICTOR)}


@pytest.mark.parametrize(
    ("suite", "worse"),
    [
        (CHAT, {"system": "You are a poet. Never name a thing. Speak of the sea and of the stars."}),
        (RAG, {"target": {"model": "crumbs"}}),
        (PREDICTOR, {"target": {"model": "calendar-only"}}),
    ],
    ids=["prompt", "retriever", "model"],
)
def test_a_worse_one_turns_the_gate_red(
    gated: Platform, mains: dict[str, Path], tmp_path: Path, suite: dict[str, Any], worse: dict[str, Any]
) -> None:
    candidate = judged(gated, tmp_path, "candidate", suite, **worse)
    said = gated.command("eval", "compare", str(mains[suite["name"]]), str(candidate), expect=RED)
    assert "worse" in said


@pytest.mark.parametrize("suite", [CHAT, RAG, PREDICTOR], ids=["prompt", "retriever", "model"])
def test_an_unchanged_one_stays_green(
    gated: Platform, mains: dict[str, Path], tmp_path: Path, suite: dict[str, Any]
) -> None:
    again = judged(gated, tmp_path, "again", suite)
    gated.command("eval", "compare", str(mains[suite["name"]]), str(again), expect=GREEN)


def test_an_unchanged_one_that_answers_differently_each_time_is_seldom_called_worse(
    gated: Platform, tmp_path: Path
) -> None:
    """Two hundred pairs of runs, drawn from answers at temperature 1; the gate may err once in twenty."""
    warm = {"parameters": {"temperature": 1, "max_tokens": 12}, "repeats": 16, "concurrency": 16}
    told = json.loads(judged(gated, tmp_path, "warm", CHAT, **warm).read_text(encoding="utf-8"))["suites"][0]
    rng, verdicts = random.Random(7), Counter[bool]()
    for _ in range(200):
        lines = contest.against(*drawn(told, rng, tmp_path))
        verdicts[any(line.check.outcome is Outcome.FAIL for line in lines)] += 1
    assert len({row["output"] for row in told["rows"]}) > 5 * told["cases"]  # it does answer differently
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
