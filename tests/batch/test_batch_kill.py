"""Batches whose gateway is killed in the middle: no line twice, none lost, one charge each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from support.installed import Platform, language_server, until

from trilith_gateway.store import sqlite

LINES = 600
CONCURRENCY = 4
DYING = Path(__file__).parents[1] / "support" / "dying_gateway.py"
PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2", "batch_factor": "0.5"}


@pytest.fixture
def upstream() -> Iterator[str]:
    with language_server() as url:
        yield url


@pytest.fixture
def platform(tmp_path: Path, upstream: str) -> Iterator[Platform]:
    models = {"echo": {"kind": "chat", "upstream": {"url": upstream}, "price": PRICE}}
    made = Platform(tmp_path, {"models": models})
    yield made
    made.stop(signal.SIGKILL)


def line(number: int) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": f"line {number}"}]}
    return json.dumps(
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    )


def hand_in(client: openai.OpenAI, lines: int = LINES) -> str:
    data = "\n".join(map(line, range(lines))).encode()
    file = client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


def completed(client: openai.OpenAI, id: str) -> int:
    counts = client.batches.retrieve(id).request_counts
    return counts.completed if counts is not None else 0


def lose_outcomes(platform: Platform, id: str, count: int) -> None:
    """Make it as if the kill had come between the charges of these lines and their outcomes."""
    path = platform.home / "files" / f"{id}.results"
    done = path.read_bytes().splitlines(keepends=True)
    assert len(done) > count
    path.write_bytes(b"".join(done[:-count]) + done[-1][:20])


def check(platform: Platform, client: openai.OpenAI, id: str, lines: int = LINES) -> None:
    """Every line has one answer, its own, and one charge."""
    until(lambda: client.batches.retrieve(id).status == "completed", what="the batch being completed")
    batch = client.batches.retrieve(id)
    assert batch.error_file_id is None
    assert batch.output_file_id is not None
    answers = [json.loads(raw) for raw in client.files.content(batch.output_file_id).text.splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"c{n}" for n in range(lines)]
    said = [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers]
    assert said == [f"line {n}" for n in range(lines)]
    platform.stop()
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        rows: list[Any] = connection.execute(
            "select * from ledger where rule = 'usage' and category = 'usage'"
        ).fetchall()
        (open_ones,) = connection.execute("select count(*) from reservations where state = 'open'").fetchone()
    charges = Counter(row["id"].rsplit("-", 1)[0] for row in rows)
    assert len(charges) == lines
    assert set(charges.values()) == {1}
    assert {row["amount_pico_usd"] for row in rows} == {(2 * 10**6 + 2 * 2 * 10**6) // 2}
    assert open_ones == 0


def test_after_kill_9_a_batch_goes_on_and_every_line_has_one_answer_and_one_charge(
    platform: Platform,
) -> None:
    key = platform.command("keys", "create", "load", "--quiet")
    platform.start()
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key) as client:
        id = hand_in(client)
        for share in (4, 2):  # killed twice
            until(lambda share=share: completed(client, id) >= LINES // share // 2, what="lines being done")  # type: ignore[misc]
            assert platform.process is not None
            platform.process.kill()
            platform.process.wait()
            lose_outcomes(platform, id, 5)
            platform.start()
        assert completed(client, id) < LINES
        check(platform, client, id)


TABLE, LINE = "trilith_gateway.batch.table:Batches", "trilith_gateway.batch.line:Results"
RUNNER, SHELF = "trilith_gateway.batch.runner", "trilith_gateway.batch.shelf:Shelf"
STEPS = {
    "it is made, and nobody was told": (f"{TABLE}.create", "after", 1),
    "it has begun": (f"{TABLE}.begin", "after", 1),
    "an answer is paid for and not written": (f"{LINE}.add", "before", 7),
    "an answer is written": (f"{LINE}.add", "after", 7),
    "the last answer is written": (f"{LINE}.add", "after", 20),
    "its files are written": (f"{LINE}.write_files", "after", 1),
    "its output has its name": (f"{RUNNER}:settle", "after", 1),
    "its output has its row": (f"{SHELF}.add", "after", 1),
    "it has ended and lies about": (f"{TABLE}.end", "after", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_loses_no_line_and_repeats_none_that_was_written(
    platform: Platform, upstream: str, step: str
) -> None:
    place, when, number = STEPS[step]
    key = platform.command("keys", "create", "load", "--quiet")
    platform.start_as(str(DYING), place, when, str(number), "serve")
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key, max_retries=0) as client:
        with contextlib.suppress(openai.APIConnectionError):
            hand_in(client, 20)
        assert platform.process is not None
        assert platform.process.wait(timeout=60) == -signal.SIGKILL
        platform.start()
        (batch,) = client.batches.list().data
        until(lambda: client.batches.retrieve(batch.id).status == "completed", what="its end")
        listed = client.files.list().data
        check(platform, client, batch.id, 20)
        left = sorted(path.name for path in (platform.home / "files").iterdir())
        assert left == sorted(file.id for file in listed)
    with httpx.Client() as http:
        calls = http.get(upstream.removesuffix("/v1") + "/calls").json()
    assert 20 <= calls <= 20 + (CONCURRENCY if number == 7 else 0)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_during_an_upload_leaves_a_whole_file_or_nothing(platform: Platform, when: str) -> None:
    key = platform.command("keys", "create", "load", "--quiet")
    platform.start_as(str(DYING), f"{SHELF}.put", when, "1", "serve")
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key, max_retries=0) as client:
        with contextlib.suppress(openai.APIConnectionError):
            client.files.create(file=("in.jsonl", b"x" * 100_000), purpose="batch")
        assert platform.process is not None
        assert platform.process.wait(timeout=60) == -signal.SIGKILL
        platform.start()
        folder = platform.home / "files"
        until(lambda: not list(folder.glob("upload-*")), what="what the kill left being swept")
        files = client.files.list().data
        assert [file.bytes for file in files] == [100_000] * (when == "after")
        assert [path.name for path in folder.iterdir()] == [file.id for file in files]
        for file in files:
            assert client.files.content(file.id).content == b"x" * 100_000


def test_of_several_workers_one_runs_a_batch_and_another_takes_it_over(platform: Platform) -> None:
    key = platform.command("keys", "create", "load", "--quiet")
    platform.start("serve", "--workers", "2")
    with openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key) as client:
        id = hand_in(client)
        until(lambda: completed(client, id) >= LINES // 8, what="lines being done")
        with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
            row = connection.execute("select holder from leaders where name like 'batches %'").fetchone()
        worker = row["holder"].rpartition("/")[2]
        os.kill(_pid(platform, worker), signal.SIGKILL)
        time.sleep(0.1)
        check(platform, client, id)


def _pid(platform: Platform, worker: str) -> int:
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            mine = f"TRILITH_SETTINGS={platform.path}".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue
        if mine and b"trilith_gateway.worker" in words:
            at = words.index(b"trilith_gateway.worker")
            if words[at + 1] == worker.encode():
                return int(folder.name)
    raise AssertionError(f"worker {worker} does not run")
