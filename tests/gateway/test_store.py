from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from trilith.errors import SettingsError
from trilith_gateway import key
from trilith_gateway.store import audit, sqlite
from trilith_gateway.store.journal import Journal, Record
from trilith_gateway.store.sqlite import SqliteStore


def charge(number: int, amount: int | None = 7) -> Record:
    texts = dict.fromkeys(("key_id", "team", "model", "kind", "release", "rule", "price"), "x")
    counts = dict.fromkeys(
        (
            "input_tokens",
            "output_tokens",
            "cached_input_tokens",
            "reasoning_tokens",
            "rows",
            "requests",
            "streamed",
        ),
        1,
    )
    return {
        "t": "charge",
        "id": f"c{number}",
        "request_id": f"c{number}",
        "at": 1.0,
        "status": 200,
        "amount_pico_usd": amount,
        "duration_ms": 1.0,
        "first_byte_ms": None,
        **texts,
        **counts,
    }


def reserve(number: int) -> Record:
    return {"t": "reserve", "id": f"c{number}", "key_id": "x", "amount_pico_usd": 9, "at": 1.0}


def note(number: int) -> Record:
    return {
        "t": "audit",
        "id": f"a{number}",
        "at": 1.0,
        "event": "pii.mask",
        "detail": {"entities": {"PERSON": 1}},
    }


def query(home: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite.connect(sqlite.database(home))) as connection:
        return [tuple(row) for row in connection.execute(statement)]


def test_facts_reach_the_tables_and_a_charge_settles_its_reservation(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for fact in (reserve(1), reserve(2), charge(1)):
        store.append(fact)
    store.flush()
    assert query(tmp_path, "select id, state from reservations") == [("c2", "open")]
    assert query(tmp_path, "select id, amount_pico_usd from ledger") == [("c1", 7)]
    store.close()


def test_the_same_fact_twice_counts_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    for _ in range(2):
        store.append(charge(1))
        store.append(note(1))
    store.close()
    assert query(tmp_path, "select count(*), sum(amount_pico_usd) from ledger") == [(1, 7)]
    assert query(tmp_path, "select count(*) from audit") == [(1,)]


def test_a_killed_process_loses_no_fact_and_leaves_no_reservation_open(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_store import charge, note, reserve
from trilith_gateway.store.sqlite import SqliteStore
store = SqliteStore(Path({str(tmp_path)!r}))
for number in range(1_000_000):
    store.append(reserve(number))
    if number % 3:
        store.append(charge(number))
        store.append(note(number))
        print(number, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    answered = [int(child.stdout.readline()) for _ in range(2000)]
    os.kill(child.pid, signal.SIGKILL)
    answered += [int(line) for line in child.stdout.read().split() if line]
    child.wait()
    child.stdout.close()
    SqliteStore(tmp_path).close()
    charged = {row[0] for row in query(tmp_path, "select id from ledger")}
    assert {f"c{number}" for number in answered[:-1]} <= charged
    assert query(tmp_path, "select count(*) from reservations where state = 'open'") == [(0,)]
    assert query(tmp_path, "select count(*) > 0 from reservations where state = 'lost'") == [(1,)]
    with closing(sqlite.connect(sqlite.database(tmp_path))) as connection:
        assert audit.first_fault(connection) is None


def test_a_line_that_the_crash_cut_off_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(charge(1))
    journal.close()
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(charge(2))[:-9])
    assert [record["id"] for record in Journal(tmp_path).replay()] == ["c1"]


def lines(folder: Path) -> list[tuple[str, str]]:
    facts = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return [(fact["t"], fact["id"]) for fact in facts]


def test_a_reservation_that_is_charged_at_once_is_never_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.hold(reserve(1))
    journal.hold(reserve(2))
    journal.append(charge(1))
    assert lines(tmp_path) == [("charge", "c1")]
    assert [record["id"] for _, record in journal.write_held()] == ["c2"]
    assert journal.write_held() == []
    assert lines(tmp_path) == [("charge", "c1"), ("reserve", "c2")]
    journal.close()


def test_a_reservation_that_the_disk_refuses_is_still_held(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.hold(reserve(1))
    own, broken = journal._fd, os.open(os.devnull, os.O_RDONLY)
    journal._fd = broken
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.write_held()
    with pytest.raises(OSError, match="refused"):
        journal.hold(reserve(2))
    journal._fd = own
    os.close(broken)
    assert [record["id"] for _, record in journal.write_held()] == ["c1"]
    journal.close()


def test_segments_that_are_in_the_database_are_deleted(tmp_path: Path) -> None:
    for number in range(3):
        store = SqliteStore(tmp_path)
        store.append(charge(number))
        store.close()
    assert len(list((tmp_path / "journal" / "0").glob("*.jsonl"))) == 1


def test_one_home_has_one_gateway(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(SettingsError, match="another gateway"):
        SqliteStore(tmp_path)
    store.close()


@pytest.mark.parametrize(
    "tampering",
    [
        "update audit set detail = '{}' where number = 2",
        "delete from audit where number = 2",
        "delete from audit where number = 1",
        "update audit set event = 'pii.block' where number = 3",
    ],
)
def test_a_changed_audit_log_is_noticed(tmp_path: Path, tampering: str) -> None:
    store = SqliteStore(tmp_path)
    for number in range(3):
        store.append(note(number))
    store.close()
    with closing(sqlite.connect(sqlite.database(tmp_path))) as connection:
        assert audit.first_fault(connection) is None
        connection.execute(tampering)
        assert audit.first_fault(connection) is not None


def test_another_process_s_change_is_noticed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with closing(sqlite.connect(sqlite.database(tmp_path))) as connection:
        key.save(connection, key.mint("k")[0])
    assert store.keys_changed.wait(timeout=10)
    store.close()


TORN = """
import resource, sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_store import charge
from trilith_gateway.store.journal import Journal
journal, accepted = Journal(Path({folder!r})), []
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
number = 0
for size in range(5_000, 5_700, 7):  # the end of the disk falls on every part of a line
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        while True:
            journal.append(charge(number))
            accepted.append(f"c{{number}}")
            number += 1
    except OSError:
        number += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.append(charge(number))
print(*accepted, f"c{{number}}")
"""


def test_a_line_that_the_disk_took_in_part_takes_no_other_with_it(tmp_path: Path) -> None:
    code = TORN.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert [record["id"] for record in Journal(tmp_path).replay()] == done.stdout.split()


def test_a_torn_line_that_cannot_be_taken_back_is_ended_by_the_next_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    own, (out, into) = journal._fd, os.pipe2(os.O_NONBLOCK)
    journal._fd = into  # takes some of a line, and gives nothing back
    accepted = []
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            journal.append(charge(number) | {"request_id": "x" * 10_000})
            accepted.append(f"c{number}")
    written = os.read(out, 1 << 20)
    assert not written.endswith(b"\n")
    journal.append(charge(-1))
    (tmp_path / "00000001.jsonl").write_bytes(written + os.read(out, 1 << 20))
    journal._fd = own
    journal.close()
    for end in (out, into):
        os.close(end)
    assert [record["id"] for record in Journal(tmp_path).replay()] == [*accepted, "c-1"]
    assert "1 line that is not whole" in caplog.text


def test_a_segment_that_cannot_be_begun_is_no_reason_to_refuse_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trilith_gateway.store.journal._MAX_SEGMENT_BYTES", 600)
    folder = tmp_path / "journal"
    journal = Journal(folder)
    folder.rename(tmp_path / "away")
    for number in range(5):
        assert journal.append(charge(number)) == 1
    (tmp_path / "away").rename(folder)
    segment = [journal.append(charge(number)) for number in range(5, 8)]
    assert (segment[0], segment[-1] > 1) == (1, True)
    journal.close()
    assert [record["id"] for record in Journal(folder).replay()] == [f"c{number}" for number in range(8)]


def test_a_journal_that_waits_for_the_disk_is_forgotten_only_for_tables_that_do(tmp_path: Path) -> None:
    found = {}
    for durability in ("strict", "batched"):
        store = SqliteStore(tmp_path / durability, durability=durability)
        with closing(store._database.connect()) as connection:
            found[durability] = connection.execute("pragma synchronous").fetchone()[0]
        store.append(charge(1))
        store.close()
        assert query(tmp_path / durability, "select id from ledger") == [("c1",)]
    assert found == {"strict": 2, "batched": 1}
