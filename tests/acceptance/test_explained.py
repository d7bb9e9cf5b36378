"""`trilith explain` beside a running gateway that stores no spans: the ledger alone has the reasons."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.installed import Platform, language_server, until

from trilith_gateway.store import sqlite

PRICE = {"usd_per_request": "0.01"}


@pytest.fixture
def places(tmp_path: Path) -> Iterator[tuple[Platform, str, str]]:
    """A gateway whose model has two replicas: the address that is away, and the other."""
    with ExitStack() as there, ExitStack() as here:
        url, away = there.enter_context(language_server()), here.enter_context(language_server())
        models = {
            "echo": {
                "kind": "chat",
                "upstream": {"url": away},
                "replicas": [{"url": url}],
                "routing": {"policy": "weighted", "breaker_failures": 1, "breaker_pause_s": 600},
                "cache": {"ttl_s": 60},
                "price": PRICE,
            },
            "lost": {"kind": "chat", "upstream": {"url": away}, "fallbacks": ["echo"], "price": PRICE},
        }
        made = Platform(tmp_path, {"models": models, "telemetry": {"store_spans": False}})
        made.start()
        here.close()  # from now on
        yield made, away, url
        made.stop()


def chat(platform: Platform, key: str, text: str, **fields: Any) -> str:
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **fields}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{platform.url}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-request-id"])


def explained(platform: Platform, id: str) -> str:
    """What the command prints, once the ledger has caught up."""
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        row = "select 1 from ledger where request_id = ?"
        until(lambda: connection.execute(row, (id,)).fetchone(), what="the charge in the ledger")
    return platform.command("explain", id)


def test_why_this_replica_and_what_it_cost_is_told_without_any_span(
    places: tuple[Platform, str, str],
) -> None:
    platform, away, there = places
    key = platform.command("keys", "create", "k", "--quiet")
    first = explained(platform, chat(platform, key, "one", temperature=0))
    assert f"retry: {away} did not answer" in first
    assert f"upstream  {there}" in first
    assert "0.01 USD at price" in first
    second = explained(platform, chat(platform, key, "two"))
    assert f"replica: {there}, the only one that may be asked; not asked: {away} (circuit open)" in second
    assert "secret words" not in explained(platform, chat(platform, key, "secret words"))
    kept = explained(platform, chat(platform, key, "one", temperature=0))
    assert "cache: a kept answer to the same request" in kept
    fell = explained(platform, id := chat(platform, key, "three", model="lost"))
    assert "fallback: lost did not answer" in fell
    (*_, row) = json.loads(platform.command("explain", id, "--json"))["charges"]
    assert (row["model"], row["asked"], row["upstream"]) == ("echo", "lost", there)
    assert "fallback" in [one["fact"][0] for one in row["decided"]]
