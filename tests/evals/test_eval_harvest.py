"""Datasets from traces: what a real gateway recorded becomes cases, without the personal data in them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.gateway import Gateway, Running
from support.installed import until

from trilith.cli import main
from trilith.errors import DataError
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream, PatternScanner
from trilith_evals import subject
from trilith_evals.dataset import Columns, load
from trilith_evals.harvest import Harvest, Wanted, from_traces
from trilith_evals.sidecar import read_sidecar
from trilith_evals.trace import Call, Opinion, Spans
from trilith_gateway.tracing import SqliteSpanExporter, database

SCANNER = PatternScanner(names=["Ada Lovelace"])
QUESTIONS = (
    "What is the capital of France?",
    "Mail ada@example.org that Ada Lovelace is late",
    "What's 2+2?",
)


@pytest.fixture
def recorded(tmp_path: Path, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `trilith traces --export` wrote of three answers of a real gateway, and of what people thought."""
    home = tmp_path / "home"
    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    declared = {"home": home, "telemetry": {"content": True}, "models": {"echo": chat}}
    with Running(Settings.model_validate(declared), {"echo": MemoryUpstream()}) as gateway:
        asked = [gateway.chat(text) for text in QUESTIONS]
        ids = [answer.headers["x-request-id"] for answer in asked]
        opine(gateway, ids[0], score=1)
        opine(gateway, ids[1], score=0, label="thumbs_down")
        opine(gateway, ids[2], label="correction", comment="4, as Ada Lovelace knew")
        until(lambda: len(answered(spans)) == len(QUESTIONS), what="the requests' spans")
        gateway.platform.store.flush()
    SqliteSpanExporter(database(home)).export(spans.get_finished_spans())
    (tmp_path / "trilith.yaml").write_text(
        f"home: {home}\ntelemetry: {{content: true}}\n"
        "models: {echo: {kind: chat, upstream: {url: 'http://127.0.0.1:9/v1'}}}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("TRILITH_SETTINGS", str(tmp_path / "trilith.yaml"))
    assert main(["traces", "--export", str(tmp_path / "spans.jsonl")]) == 0
    return tmp_path / "spans.jsonl"


def answered(spans: InMemorySpanExporter) -> list[Any]:
    return [span for span in spans.get_finished_spans() if span.name == "chat echo"]


def opine(gateway: Gateway, request_id: str, **opinion: Any) -> None:
    with gateway.client() as client:
        said: httpx.Response = client.post("/v1/feedback", json={"request_id": request_id, **opinion})
    assert said.status_code == 201, said.text


def harvest(
    recorded: Path, wanted: Wanted | None = None, **options: Any
) -> tuple[Harvest, list[dict[str, Any]]]:
    to = recorded.with_name("cases.jsonl")
    told = from_traces([str(recorded)], to, wanted, **({"scanner": SCANNER} | options))
    return told, [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]


def test_recorded_calls_become_cases_with_what_people_said(recorded: Path) -> None:
    told, rows = harvest(recorded)
    assert (told.cases, told.read) == (3, 3)
    by_input = {row["input"]: row for row in rows}
    france = by_input[QUESTIONS[0]]
    assert (france["model"], france["opinion"]) == ("echo", "up")
    assert len(france["release"]) == 12
    assert by_input[QUESTIONS[2]]["expected"] == "4, as <PERSON_1> knew"
    data = load(recorded.with_name("cases.jsonl"), Columns(cluster="conversation"))
    assert not data.held_out
    assert len({case.cluster for case in data.cases}) == 3


def test_no_personal_data_is_written_and_the_kinds_are_counted(recorded: Path) -> None:
    told, rows = harvest(recorded)
    written = recorded.with_name("cases.jsonl").read_text(encoding="utf-8")
    assert "ada" not in written.lower().replace("<", "")
    (mail,) = [row for row in rows if "late" in row["input"]]
    assert mail["input"] == "Mail <EMAIL_ADDRESS_1> that <PERSON_1> is late"
    assert "<PERSON_1>" in mail["answer"]
    assert told.personal == {"PERSON": 2, "EMAIL_ADDRESS": 1}
    sidecar = read_sidecar(recorded.with_name("cases.jsonl"))
    assert sidecar is not None
    assert sidecar.source["personal_data"] == told.personal
    assert datetime.fromisoformat(sidecar.source["from"]) <= datetime.now(UTC)


def test_nothing_is_written_when_personal_data_cannot_be_looked_for(recorded: Path) -> None:
    broken = PatternScanner(fail_with=RuntimeError("Ada Lovelace broke it"))
    with pytest.raises(
        DataError, match=r"could not be looked for \(RuntimeError\); nothing was written"
    ) as refused:
        harvest(recorded, scanner=broken)
    assert "Ada" not in str(refused.value)
    assert sorted(path.name for path in recorded.parent.glob("*cases*")) == []


def test_newer_rows_keep_what_was_held_out(recorded: Path) -> None:
    harvest(recorded)
    cases = str(recorded.with_name("cases.jsonl"))
    assert main(["eval", "dataset", "split", cases, "train=0.5", "test=0.5", "--held-out", "test"]) == 0
    harvest(recorded, Wanted(limit=2))
    sidecar = read_sidecar(recorded.with_name("cases.jsonl"))
    assert sidecar is not None
    assert sidecar.splits is not None
    assert (sidecar.held_out, sidecar.source["cases"]) == (("test",), 2)


def test_bad_answers_can_be_picked_alone(recorded: Path) -> None:
    _, rows = harvest(recorded, Wanted(opinions="down"))
    assert sorted(row["opinion"] for row in rows) == ["down", "down"]
    told, rows = harvest(recorded, Wanted(opinions="up"))
    assert [row["input"] for row in rows] == [QUESTIONS[0]]
    assert told.left_out["of other feedback"] == 2


def test_calls_are_picked_by_model_release_and_time(recorded: Path) -> None:
    (release,) = {call.release for call in Spans((str(recorded),))}
    assert harvest(recorded, Wanted(releases=frozenset({release})))[0].cases == 3
    later = datetime(2099, 1, 1, tzinfo=UTC)
    for wanted in (Wanted(models=frozenset({"x"})), Wanted(releases=frozenset({"x"})), Wanted(since=later)):
        with pytest.raises(DataError, match="no call is wanted"):
            harvest(recorded, wanted)
    assert harvest(recorded, Wanted(until=later))[0].cases == 3


def test_a_persons_rows_are_found_and_erased_by_what_they_give(recorded: Path) -> None:
    key_file = recorded.with_name("erasure.key")
    key = subject.open_key(key_file, make=True)
    assert os.stat(key_file).st_mode & 0o777 == 0o600
    _, rows = harvest(recorded, erasure_key=key)
    assert all(len(row["subjects"]) >= 1 for row in rows)
    cases = recorded.with_name("cases.jsonl")
    erase = ["eval", "dataset", "erase", str(cases), "--erasure-key", str(key_file), "--subject"]
    assert main([*erase, "nobody"]) == 0
    assert len(load(cases).cases) == 3
    assert main([*erase, "ADA  lovelace"]) == 0
    assert [case.input for case in load(cases).cases] == [QUESTIONS[0]]
    (caller,) = {call.key_id for call in Spans((str(recorded),))}
    assert main([*erase, f"key:{caller}"]) == 0
    assert cases.read_text(encoding="utf-8") == ""


def test_hashes_of_one_person_differ_under_another_key() -> None:
    assert subject.hashed(b"a" * 32, "Ada") != subject.hashed(b"b" * 32, "Ada")


def test_the_command_reads_a_folder_and_tells_what_it_left_out(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recorded.parent / "spans").mkdir()
    recorded.rename(recorded.parent / "spans" / "a.jsonl")
    to = recorded.with_name("made.jsonl")
    code = main(
        ["eval", "dataset", "from-traces", str(recorded.parent / "spans"), "--out", str(to)]
        + ["--entity", "EMAIL_ADDRESS", "--feedback", "some", "--limit", "2", "--order", "doubtful"]
    )
    assert code == 0
    told = capsys.readouterr().out
    assert "2 cases of 3 calls" in told
    assert "1 beyond the limit" in told
    assert "1 EMAIL_ADDRESS" in told
    assert {case.fields["opinion"] for case in load(to).cases} == {"down"}


def test_spans_without_text_are_refused_with_the_switch_to_turn_on(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    from trilith_gateway import otlp

    home = tmp_path / "home"
    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    settings = Settings.model_validate({"home": home, "models": {"echo": chat}})
    with Running(settings, {"echo": MemoryUpstream()}) as gateway:
        gateway.chat("hello")
        until(lambda: answered(spans), what="the request's span")
    SqliteSpanExporter(database(home)).export(spans.get_finished_spans())
    exported = tmp_path / "spans.jsonl"
    exported.write_text("\n".join(otlp.lines(database(home), {})), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 without text.*`telemetry\.content` is on"):
        from_traces([str(exported)], tmp_path / "c.jsonl", scanner=SCANNER)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense\n", r"spans\.jsonl:1: not OTLP JSON \(JSONDecodeError\)"),
        ('\n{"spans": []}\n', r"spans\.jsonl:2: not OTLP JSON \(KeyError\)"),
        (
            '{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "x"}]}]}]}]}\n',
            r"spans\.jsonl:1: not a span of OTLP JSON \(KeyError\)",
        ),
        ("", "no call is wanted"),
    ],
)
def test_files_that_are_no_spans_are_refused_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "spans.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        from_traces([str(tmp_path / "spans.jsonl")], tmp_path / "c.jsonl", scanner=SCANNER)


def call(id: str, text: str, *, day: int = 1, **fields: Any) -> Call:
    at = datetime(2026, 11, day, int(id) % 24, tzinfo=UTC)
    said = ({"role": "user", "content": text},)
    return Call(id, f"t{id}", fields.pop("model", "m"), at, said, "answer", **fields)


def test_a_call_without_an_answer_is_no_case() -> None:
    assert Wanted().lacks(call("1", "x", failed=True)) == "without an answer"
    assert Wanted().lacks(call("1", "x")) == ""


def ids(calls: list[Call], **wanted: Any) -> list[str]:
    from collections import Counter

    from trilith_evals.harvest import _chosen

    return [one.id for one in _chosen(calls, Wanted(**wanted), Counter())]


def test_questions_that_are_nearly_the_same_count_once_and_the_newest_stays() -> None:
    long = "Please tell me in a few words how I can cancel my subscription before the end of the month"
    calls = [call("1", long), call("2", f"{long}!"), call("3", long.upper()), call("4", "Something else")]
    assert ids(calls) == ["4", "3"]
    assert ids(calls, alike=1.1) == ["4", "3", "2", "1"]


def test_a_draw_is_the_same_for_a_seed_whatever_the_order_of_the_files() -> None:
    calls = [call(str(i), f"question number {i} about {'abcdefghij'[i % 10] * 9}") for i in range(40)]
    drawn = ids(calls, order="random", seed=5, limit=8)
    assert drawn == ids(calls[::-1], order="random", seed=5, limit=8)
    assert drawn != ids(calls, order="random", seed=6, limit=8)


def test_every_stratum_has_its_turn_however_rare_it_is() -> None:
    often = [call(str(i), f"{'abcdefgh'[i] * 12}", model="often") for i in range(8)]
    rare = [call("9", "zzzzzzzzzzz", model="rare")]
    chosen = ids([*often, *rare], by="model", limit=4)
    assert "9" in chosen
    assert len(chosen) == 4


def test_doubtful_answers_come_first() -> None:
    calls = [
        call("1", "aaaaaaaa"),
        call("2", "bbbbbbbb", signs={"cascade": 0.6}),
        call("3", "cccccccc", opinions=(Opinion(1.0), Opinion(0.0))),
        call("4", "dddddddd", opinions=(Opinion(label="thumbs_down"),)),
    ]
    assert ids(calls, order="doubtful") == ["3", "4", "2", "1"]
