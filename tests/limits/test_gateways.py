"""Two gateways on databases of their own, with one Redis between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest
from support.gateway import PRICE, Gateway, Running
from support.redis_server import RedisServer

from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_gateway import key
from trilith_gateway.store import sqlite
from trilith_gateway.terms import Terms

BODY = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 10}


@pytest.fixture
def machines(redis_server: RedisServer, tmp_path: Path) -> Iterator[list[Gateway]]:
    model = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": PRICE}
    with ExitStack() as stack:
        found = []
        for name in ("a", "b"):
            tree = {
                "home": str(tmp_path / name),
                "store": {"redis_url": redis_server.url, "redis_away": "closed"},
                "models": {"echo": model},
            }
            upstream = MemoryUpstream(delay_s=0.05)
            found.append(stack.enter_context(Running(Settings.model_validate(tree), {"echo": upstream})))
        yield found


def known_to_all(machines: list[Gateway], terms: Terms) -> str:
    made, token = key.mint("shared", terms=terms)
    for machine in machines:
        with closing(sqlite.connect(sqlite.database(machine.home))) as connection:
            key.save(connection, made)
        machine.platform.keys.reload()
    return token


def call(machines: list[Gateway], token: str, number: int) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    url = f"{machines[number % 2].url}/v1/chat/completions"
    return httpx.post(url, json=BODY, headers=headers, timeout=30)


def test_they_share_a_limit_on_requests_and_tell_it(machines: list[Gateway]) -> None:
    token = known_to_all(machines, Terms(requests_per_minute=7, tokens_per_minute=100_000))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: call(machines, token, number), range(16)))
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 9}
    let_in = [answer.headers for answer in answers if answer.status_code == 200]
    left = sorted(int(headers["x-ratelimit-remaining-requests"]) for headers in let_in)
    assert left == list(range(7))
    assert {headers["x-ratelimit-limit-tokens"] for headers in let_in} == {"100000"}


def test_they_share_a_limit_on_concurrency_and_lose_no_place(machines: list[Gateway]) -> None:
    token = known_to_all(machines, Terms(max_concurrency=2))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: call(machines, token, number).status_code, range(24))) == {
            200,
            429,
        }
    assert [call(machines, token, number).status_code for number in range(4)] == [200] * 4
