"""Three kinds of model through one gateway with one key: answered, cited, priced, traced, evaluated."""

from __future__ import annotations

import json
import re
import sqlite3
import time
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path

from support.installed import Platform

from trilith import Client
from trilith.telemetry import names
from trilith_gateway import tracing

DEMO = Path(__file__).resolve().parents[2] / "examples" / "demo"


def test_documents_answer_with_citations_that_are_real_spans_of_real_files(
    platform: Platform, key: str
) -> None:
    from trilith_rag.parsing import parse

    with Client(base_url=platform.url, api_key=key, timeout_s=120) as client:
        answer = client.ask("encyclopedia", "Which team won Super Bowl 50?")
    assert answer.citations
    for citation in answer.citations:
        document, _ = parse(citation.path, (DEMO / "documents" / citation.path).read_bytes())
        assert document.text[citation.start : citation.end] == citation.quote
        assert f"[{citation.number}]" in answer.text


def test_a_predictor_that_was_just_trained_beats_the_mean(platform: Platform, key: str) -> None:
    with (DEMO / "data" / "bike_requests.jsonl").open(encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    with Client(base_url=platform.url, api_key=key) as client:
        values = client.predict("bike-demand", [case["features"] for case in cases]).values
    truth = [case["label"] for case in cases]
    mean = sum(truth) / len(truth)
    model_error = sum(abs(float(v) - t) for v, t in zip(values, truth, strict=True))
    assert model_error < 0.6 * sum(abs(mean - t) for t in truth)


def test_every_kind_is_in_one_ledger(platform: Platform, key: str) -> None:
    with Client(base_url=platform.url, api_key=key, timeout_s=120) as client:
        client.embeddings.create(model="minilm", input="a text")
        client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
    time.sleep(0.5)
    kinds = {row["kind"]: row for row in json.loads(platform.command("costs", "--by", "kind", "--json"))}
    assert {"chat", "rag", "predictor", "embedding"} <= set(kinds)
    assert all(row["unpriced"] == 0 and row["amount_pico_usd"] > 0 for row in kinds.values())


def test_one_trace_shows_guardrail_retrieval_and_model_under_the_request(
    platform: Platform, key: str
) -> None:
    with Client(base_url=platform.url, api_key=key, timeout_s=120) as client:
        answer = client.ask("encyclopedia", "When did the Black Death reach Europe?")
    time.sleep(1.5)  # spans are written in batches
    tree = platform.command("traces", answer.request_id)
    operations = [re.split(r"[├└│─ ]+", line.strip(), maxsplit=1) for line in tree.splitlines()]
    shown = " ".join(word for words in operations for word in words)
    for span in ("chat encyclopedia", "guardrail pii", "retrieval encyclopedia", "chat smollm2"):
        assert span in shown, tree
    assert not tree.splitlines()[0].startswith(("├", "└"))


def test_every_span_that_the_platform_stored_has_its_shape(platform: Platform) -> None:
    with closing(sqlite3.connect(tracing.database(platform.home))) as connection:
        rows = connection.execute("select name, attributes from spans").fetchall()
    assert rows
    assert [fault for name, attributes in rows for fault in names.faults(name, json.loads(attributes))] == []


def test_the_suites_pass_against_the_running_platform(platform: Platform, key: str, tmp_path: Path) -> None:
    junit, report = tmp_path / "evals.xml", tmp_path / "evals.html"
    platform.environment |= {"TRILITH_BASE_URL": platform.url, "TRILITH_API_KEY": key}
    platform.command("eval", "run", str(DEMO / "evals.yaml"), "--junit", str(junit), "--report", str(report))
    cases = list(ET.parse(junit).iter("testcase"))
    assert len(cases) >= 3
    assert not list(ET.parse(junit).iter("failure"))
    assert "<html" in report.read_text(encoding="utf-8")


def test_models_of_all_kinds_are_listed_with_their_releases(platform: Platform, key: str) -> None:
    listed = platform.command("models")
    assert all(kind in listed for kind in ("chat", "rag", "predictor", "embedding"))
    with Client(base_url=platform.url, api_key=key) as client:
        served = {model.id for model in client.models.list()}
    assert served == {"smollm2", "minilm", "encyclopedia", "bike-demand"}
