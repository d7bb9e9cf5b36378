"""`trilith eval monitor`: logs and the gateway's databases in, findings out, and a restart that goes on."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from trilith.cli import main
from trilith_gateway.tracing import _SCHEMA

DAY_S = 86_400.0


def write_log(path: Path, days: range, *, error: float, label_after_s: float = 3600.0) -> None:
    with path.open("a", encoding="utf-8") as file:
        for number in days:
            generator = np.random.default_rng(number)
            for n in range(100):
                at, said = number * DAY_S + n * 800.0, float(generator.random() < 0.5)
                right = said if generator.random() > error else 1 - said
                row = {"id": f"{number}-{n}", "at": at, "features": {"x": generator.normal()}}
                file.write(json.dumps(row | {"score": 0.8 if said else 0.2}) + "\n")
                label = {"id": row["id"], "label": right, "label_at": at + label_after_s}
                file.write(json.dumps(label) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "monitor.yaml").write_text(
        "name: churn\nsources: [log.jsonl]\nloss: error\nlabel_wait_hours: 24\nreference_windows: 20\n"
        "findings: findings.jsonl\nprometheus: churn.prom\n",
        encoding="utf-8",
    )
    return tmp_path


def look(folder: Path, day: float) -> int:
    return main(["eval", "monitor", str(folder / "monitor.yaml"), "--once", "--now", str(day * DAY_S)])


def kinds(folder: Path) -> list[str]:
    path = folder / "findings.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["kind"] for line in lines]


def test_the_exit_code_goes_from_too_little_over_fine_to_an_open_incident(folder: Path) -> None:
    log = folder / "log.jsonl"
    write_log(log, range(10), error=0.2)
    assert look(folder, 10) == 2
    write_log(log, range(10, 24), error=0.2)
    assert look(folder, 24) == 0
    write_log(log, range(24, 40), error=0.6)
    assert look(folder, 41) == 1
    assert kinds(folder).count("alarm") == 1
    assert look(folder, 41) == 1  # nothing is new: nothing is said twice
    assert kinds(folder).count("alarm") == 1
    exposed = (folder / "churn.prom").read_text(encoding="utf-8")
    assert 'trilith_monitor_incidents_open{monitor="churn"} 1\n' in exposed


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(folder: Path) -> None:
    log = folder / "log.jsonl"
    write_log(log, range(3), error=0.2)
    with log.open("a", encoding="utf-8") as file:
        file.write('{"id": "half", "at": 25')
    assert look(folder, 3) == 2
    with log.open("a", encoding="utf-8") as file:
        file.write("9200.0}\n")
    assert look(folder, 4) == 2
    state = json.loads((folder / "monitor.state.json").read_text(encoding="utf-8"))
    assert state["position"][str(log)] == log.stat().st_size


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"at": 1}', "expected a mapping with a text `id`"),
        ('{"id": "a"}', "at is missing"),
        ('{"id": "a", "at": NaN}', "not a finite number"),
        ("nonsense", "Expecting value"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str], row: str, said: str
) -> None:
    (folder / "log.jsonl").write_text(row + "\n", encoding="utf-8")
    assert look(folder, 1) == 3
    shown = capsys.readouterr().err
    assert "log.jsonl at byte 0" in shown
    assert said in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alarms_per_month: 1", "alarms_per_month"),
        ("window_hours: 0", "window_hours"),
        ("metrics: [{name: a}, {name: a}]", "a name stands twice"),
    ],
)
def test_a_wrong_file_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    with (folder / "monitor.yaml").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    assert look(folder, 1) == 3
    assert said in capsys.readouterr().err


def test_a_damaged_state_is_refused_and_not_begun_anew_in_silence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(folder / "log.jsonl", range(2), error=0.2)
    (folder / "monitor.state.json").write_text("{", encoding="utf-8")
    assert look(folder, 2) == 3
    assert "remove it to begin anew" in capsys.readouterr().err


def test_the_reference_is_written_once_and_the_state_stays_small(folder: Path) -> None:
    write_log(folder / "log.jsonl", range(24), error=0.2)
    look(folder, 24)
    reference = folder / "monitor.state.json.reference"
    written = reference.stat().st_mtime_ns
    assert (folder / "monitor.state.json").stat().st_size < reference.stat().st_size / 2
    write_log(folder / "log.jsonl", range(24, 26), error=0.2)
    assert look(folder, 26) == 0
    assert reference.stat().st_mtime_ns == written


def test_a_state_with_the_reference_of_another_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(folder / "log.jsonl", range(24), error=0.2)
    look(folder, 24)
    (folder / "monitor.state.json.reference").write_text("[]", encoding="utf-8")
    assert look(folder, 25) == 3
    assert "is not the reference of" in capsys.readouterr().err


def test_the_gateways_spans_are_watched_for_latency_cost_and_refusals(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    with sqlite3.connect(tmp_path / "traces.db") as connection:
        connection.executescript(_SCHEMA)
        for number in range(36):
            for n in range(40):
                start = int((number * DAY_S + n * 2000) * 1e9)
                refused = generator.random() < (0.02 if number < 24 else 0.6)
                found = {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": "trilith",
                    "gen_ai.request.model": "assistant",
                    "gen_ai.response.finish_reasons": ["content_filter" if refused else "stop"],
                    "http.response.status_code": 200,
                    "trilith.cost.pico_usd": int(generator.gamma(4, 1e6)),
                    "trilith.request_id": f"r{number}-{n}",
                    "trilith.tenant": "acme",
                }
                name, id = "chat assistant", f"{number}-{n}"
                row = (id, id, None, name, "g", start, start + int(generator.gamma(4, 1e8)), 0, id)
                connection.execute(
                    "insert into spans values (?,?,?,?,?,?,?,?,?,?)", (*row, json.dumps(found))
                )
    connection.close()
    (tmp_path / "monitor.yaml").write_text(
        "sources: [traces.db]\nmodel: assistant\nreference_windows: 20\nfindings: findings.jsonl\n"
        "metrics: [{name: latency_s}, {name: cost_pico_usd}, {name: refused}]\n",
        encoding="utf-8",
    )
    assert look(tmp_path, 36) == 1
    lines = (tmp_path / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(x)["subject"] for x in lines if json.loads(x)["kind"] == "alarm"] == ["refused"]
