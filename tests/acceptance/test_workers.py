"""A gateway of several workers: one budget, one limit, one ledger, whoever answers and whoever dies."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.installed import Platform, language_server, until

from trilith_gateway.store import sqlite

BODY = {"model": "echo", "messages": [{"role": "user", "content": "one two three four"}], "max_tokens": 4}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with language_server() as url:
        yield url


@pytest.fixture
def platform(tmp_path: Path, upstream: str) -> Iterator[Platform]:
    price = {"usd_per_request": "0.01"}
    models = {"echo": {"kind": "chat", "upstream": {"url": upstream}, "price": price}}
    made = Platform(tmp_path, {"models": models, "telemetry": {"store_spans": False}})
    yield made
    made.stop()


def statuses(platform: Platform, key: str, calls: int) -> Counter[int]:
    """Call from many connections at once; -1 counts those that got no answer."""

    def call(number: int) -> int:
        try:
            headers = {"authorization": f"Bearer {key}"}
            return httpx.post(
                f"{platform.url}/v1/chat/completions", json=BODY, headers=headers, timeout=30
            ).status_code
        except httpx.TransportError:
            return -1

    with ThreadPoolExecutor(32) as pool:
        return Counter(pool.map(call, range(calls)))


def ledger(platform: Platform) -> list[dict[str, Any]]:
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        return [dict(row) for row in connection.execute("select * from ledger")]


def spent_after(platform: Platform, key: str) -> int:
    """Call twice more, and return the cents that the ledger holds then.

    A refusal alone does not say that a budget is spent: for a moment another worker may hold what is left.
    """
    statuses(platform, key, 2)
    spent: int = sum(row["amount_pico_usd"] for row in ledger(platform))
    return spent // 10**10


def workers(platform: Platform) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes()
            if (
                b"trilith_gateway.worker" in line
                and str(platform.path).encode() in (folder / "environ").read_bytes()
            ):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_budget_is_never_overshot_and_can_be_spent_to_the_end(platform: Platform) -> None:
    key = platform.command("keys", "create", "poor", "--quiet", "--budget-usd", "0.5")
    platform.start("serve", "--workers", "2")
    seen = statuses(platform, key, 120)
    assert set(seen) == {200, 429}
    assert seen[200] <= 50
    until(lambda: spent_after(platform, key) >= 50, what="the budget being spent")  # idle leases come back
    assert statuses(platform, key, 20) == {429: 20}
    platform.stop()
    rows = ledger(platform)
    assert sum(row["amount_pico_usd"] for row in rows) == 50 * 10**10
    assert len({row["worker"] for row in rows}) == 2


def test_a_teams_budget_is_one_for_all_its_keys_and_all_workers(platform: Platform) -> None:
    platform.command("orgs", "create", "uni", "--budget-usd", "0.4", "--budget-window", "total")
    platform.command(
        "teams", "create", "lab", "--org", "uni", "--budget-usd", "0.3", "--tokens-per-minute", "9999"
    )
    keys = [platform.command("keys", "create", team, "--quiet", "--team", team) for team in ("lab", "lab")]
    platform.start("serve", "--workers", "2")
    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(lambda key: statuses(platform, key, 40), keys))
    assert seen[0][200] + seen[1][200] <= 30
    until(lambda: spent_after(platform, keys[0]) >= 30, what="the team's budget being spent")
    assert statuses(platform, keys[0], 2) == {429: 2}
    platform.command("teams", "set", "lab", "--budget-usd", "9")
    until(lambda: statuses(platform, keys[0], 2)[200] > 0, what="the team's new budget")
    until(lambda: spent_after(platform, keys[1]) >= 40, what="the org's budget being spent")
    assert statuses(platform, keys[1], 20) == {429: 20}
    platform.stop()
    rows = ledger(platform)
    assert {(row["team"], row["org"]) for row in rows} == {("lab", "uni")}
    assert sum(row["amount_pico_usd"] for row in rows) == 40 * 10**10


def test_a_rate_limit_is_one_limit_for_all_workers(platform: Platform) -> None:
    key = platform.command("keys", "create", "slow", "--quiet", "--requests-per-minute", "20")
    platform.start("serve", "--workers", "2")
    started = time.monotonic()
    seen = statuses(platform, key, 60)
    due = (time.monotonic() - started) / 3  # one more falls due every three seconds
    assert 20 <= seen[200] <= 21 + due
    told = f'trilith_charges_total{{kind="chat",model="echo",rule="usage"}} {seen[200]}.0'
    until(lambda: told in httpx.get(f"{platform.url}/metrics").text, what="the sum over the workers")
    assert seen[200] + seen[429] == 60


def test_a_worker_that_is_killed_is_replaced_and_its_charges_are_kept(platform: Platform) -> None:
    key = platform.command("keys", "create", "load", "--quiet", "--budget-usd", "1000")
    platform.start("serve", "--workers", "2")
    before = workers(platform)
    assert len(before) == 2
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(statuses, platform, key, 400)
        until(lambda: len(ledger(platform)) > 50, what="fifty charges")
        os.kill(before[0], signal.SIGKILL)
        seen = work.result()
    until(lambda: len(workers(platform)) == 2 and set(workers(platform)) != set(before), what="a new worker")
    assert statuses(platform, key, 20) == {200: 20}
    assert platform.stop() == 0
    charged = [row["request_id"] for row in ledger(platform)]
    assert len(charged) == len(set(charged))
    assert len(charged) >= seen[200] + 20  # every answer is charged; one that was under way may be, too
    assert len(charged) <= 420
    assert not workers(platform)


def test_the_parents_log_tells_of_a_replacement_and_the_ports_are_one(platform: Platform) -> None:
    platform.start("serve", "--workers", "2")
    assert re.search(
        r"trilith gateway on http://127\.0\.0\.1:\d+, 2 workers", platform.log.read_text("utf-8")
    )


class Crowd:
    """A model that counts how many calls it has at once, and takes its time for each."""

    def __init__(self) -> None:
        self.open = self.most = self.calls = 0
        lock = threading.Lock()
        crowd = self
        told = b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    crowd.calls += 1
                    crowd.open += 1
                    crowd.most = max(crowd.most, crowd.open)
                time.sleep(0.1)
                with lock:
                    crowd.open -= 1
                self.do_GET()

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_a_models_places_are_one_number_for_all_workers(tmp_path: Path) -> None:
    crowd = Crowd()
    model = {"kind": "chat", "upstream": {"url": crowd.url}, "max_concurrency": 3, "queue_length": 100}
    made = Platform(tmp_path, {"models": {"echo": model}, "telemetry": {"store_spans": False}})
    key = made.command("keys", "create", "many", "--quiet")
    try:
        made.start("serve", "--workers", "2")
        assert statuses(made, key, 60) == {200: 60}
    finally:
        made.stop()
        crowd.server.shutdown()
        crowd.server.server_close()
    assert (crowd.calls, crowd.open) == (60, 0)
    assert crowd.most <= 3
