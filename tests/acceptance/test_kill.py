"""A gateway that is killed in the middle of its work: every answered request has exactly one charge."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from support.installed import Platform, language_server

from trilith_gateway.store import sqlite


@pytest.fixture
def upstream() -> Iterator[str]:
    with language_server() as url:
        yield url


@pytest.fixture
def platform(tmp_path: Path, upstream: str) -> Iterator[Platform]:
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}
    models = {"echo": {"kind": "chat", "upstream": {"url": upstream}, "price": price}}
    made = Platform(tmp_path, {"models": models})
    yield made
    made.stop(signal.SIGKILL)


def test_after_kill_9_every_answered_request_has_one_charge_and_no_reservation_is_open(
    platform: Platform,
) -> None:
    key = platform.command("keys", "create", "load", "--quiet")
    platform.start()
    answered: list[str] = []
    half = threading.Event()

    def call(number: int) -> None:
        body = {
            "model": "echo",
            "messages": [{"role": "user", "content": f"request {number}"}],
            "stream": number % 2 == 0,
        }
        try:
            response = client.post("/v1/chat/completions", json=body)
        except httpx.TransportError:
            return
        whole = (
            response.text.endswith("data: [DONE]\n\n") if body["stream"] else bool(response.json()["choices"])
        )
        if response.status_code == 200 and whole:
            answered.append(response.headers["x-request-id"])
        if len(answered) == 100:
            half.set()

    with (
        closing(sqlite.connect(sqlite.database(platform.home))) as blocker,
        httpx.Client(base_url=platform.url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        work = [pool.submit(call, number) for number in range(400)]
        assert half.wait(timeout=60)
        blocker.execute("begin immediate")  # from here on the tables take nothing: only the journal can
        late = len(answered) + 40
        while len(answered) < late:
            time.sleep(0.002)
        assert platform.process is not None
        platform.process.kill()
        platform.process.wait()
        blocker.execute("rollback")
        for item in work:
            item.result()
    assert 140 <= len(answered) < 400  # the kill hit the middle

    platform.start()
    platform.stop()
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        charged = [row[0] for row in connection.execute("select request_id from ledger")]
        states = dict(
            connection.execute("select state, count(*) from reservations group by state").fetchall()
        )
    assert len(charged) == len(set(charged))
    assert set(answered) <= set(charged)
    assert "open" not in states
    spent = json.loads(platform.command("costs", "--json"))
    assert sum(row["requests"] for row in spent) == len(charged)
