from __future__ import annotations

from contextlib import closing
from pathlib import Path

from trilith_gateway import key
from trilith_gateway.key import KeyRing
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
