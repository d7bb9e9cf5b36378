from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from trilith.errors import APIStatusError, AuthenticationError
from trilith_gateway import key
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import Key, KeyRing
from trilith_gateway.stages.identify import Identify
from trilith_gateway.store import sqlite


def test_a_key_is_found_by_its_token_and_by_nothing_else() -> None:
    made, token = key.mint("k")
    ring = KeyRing(lambda: [made])
    assert ring.find(token) is made
    assert ring.find(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    assert ring.find("tl_' or 1=1 --") is None
    assert ring.find("") is None


def test_the_secret_is_not_stored(tmp_path: Path) -> None:
    made, token = key.mint("k")
    with closing(sqlite.create(tmp_path / "t.db")) as connection:
        key.save(connection, made)
    secret = token.split("_", 2)[2].encode()  # which may hold the sign itself
    assert all(secret not in path.read_bytes() for path in tmp_path.iterdir())


def test_a_stored_key_reads_back_the_same(tmp_path: Path) -> None:
    made, _ = key.mint(
        "k", team="t", budget_pico_usd=5, budget_window="day", requests_per_minute=7, models=frozenset("ab")
    )
    with closing(sqlite.create(tmp_path / "t.db")) as connection:
        key.save(connection, made)
        assert key.load(connection) == [made]


def test_a_key_may_call_only_the_models_that_it_names() -> None:
    assert key.mint("k", models=frozenset({"a"}))[0].allows("a")
    assert not key.mint("k", models=frozenset({"a"}))[0].allows("b")
    assert key.mint("k")[0].allows("b")


class Table:
    """A table of keys that counts how often it is read as a whole."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.version = self.reads = 0
        self.gate = threading.Event()
        """Set while a read may end."""
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def add(self) -> str:
        made, token = key.mint("k")
        self.keys.append(made)
        self.version += 1
        return token

    def read(self) -> list[Key]:
        found = list(self.keys)
        self.reads += 1
        self.begun.release()
        self.gate.wait(20)
        return found


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def ring(table: Table) -> KeyRing:
    return KeyRing(table.read, lambda: table.version)


def test_many_who_catch_up_at_once_read_once(table: Table, ring: KeyRing) -> None:
    token = table.add()
    table.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        looks = [pool.submit(ring.catch_up) for _ in range(8)]
        table.gate.set()
        for look in looks:
            look.result()
    assert ring.find(token) is not None
    assert table.reads == 2  # the first at the start


def test_an_older_read_never_takes_the_place_of_a_newer_one(table: Table, ring: KeyRing) -> None:
    assert table.begun.acquire(timeout=20)
    table.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        older = pool.submit(ring.reload)
        assert table.begun.acquire(timeout=20)
        token = table.add()
        newer = pool.submit(ring.reload)
        table.gate.set()
        older.result(), newer.result()
    assert ring.find(token) is not None


def test_a_key_whose_table_cannot_be_read_leaves_the_old_ones(table: Table, ring: KeyRing) -> None:
    token = table.add()
    ring.catch_up()
    table.version += 1
    table.keys = None  # type: ignore[assignment]
    with pytest.raises(TypeError):
        ring.catch_up()
    assert ring.find(token) is not None
    table.keys = []
    ring.catch_up()
    assert ring.find(token) is None


def caller(token: str) -> Exchange:
    return Exchange(Api.CHAT, "/v1/chat/completions", {"authorization": f"Bearer {token}"}, lambda most: b"")


async def identified(stage: Identify, token: str) -> str:
    exchange = caller(token)
    try:
        if (wait := stage(exchange)) is not None:
            await wait
    except APIStatusError as error:
        return str(error.code)
    return exchange.caller.id


async def test_a_flood_of_unknown_tokens_reads_no_table(table: Table, ring: KeyRing) -> None:
    stage = Identify(ring)
    strangers = [key.mint("k")[1] for _ in range(300)]
    told = await asyncio.gather(*(identified(stage, token) for token in strangers))
    assert set(told) == {"invalid_api_key"}
    assert table.reads == 1


async def test_a_known_key_with_another_secret_is_refused_at_once(table: Table, ring: KeyRing) -> None:
    token = table.add()
    ring.reload()
    wrong = token[:16] + key.mint("k")[1][16:]
    with pytest.raises(AuthenticationError):
        Identify(ring)(caller(wrong))


async def test_a_key_that_is_made_while_the_table_is_being_read_is_found(table: Table, ring: KeyRing) -> None:
    stage = Identify(ring)
    assert table.begun.acquire(timeout=20)
    table.gate.clear()
    table.add()
    stranger = asyncio.create_task(identified(stage, key.mint("k")[1]))
    assert await asyncio.to_thread(table.begun.acquire, timeout=20)
    token = table.add()  # too late for this read
    found = asyncio.create_task(identified(stage, token))
    await asyncio.sleep(0)
    table.gate.set()
    assert await stranger == "invalid_api_key"
    assert await found == table.keys[-1].id


async def test_keys_that_cannot_be_read_are_503_and_nobody_waits_twice(table: Table, ring: KeyRing) -> None:
    stage = Identify(ring)
    table.add()
    table.keys = None  # type: ignore[assignment]
    told = await asyncio.gather(*(identified(stage, key.mint("k")[1]) for _ in range(5)))
    assert told == ["store_unavailable"] * 5
