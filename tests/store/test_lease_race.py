"""Leases under contention: what all holders have taken together never exceeds the limit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from trilith_gateway.store import lease, sqlite

HOLDERS, WINDOWS, LIMIT = 4, 60, 100


@pytest.fixture
def database(url: str | None, tmp_path: Path) -> Any:
    if url is None:
        path = tmp_path / "race.db"
        sqlite.create(path).close()
        return sqlite.SqliteDatabase(path)
    from trilith_gateway.store import postgres

    return postgres.PostgresDatabase(url)


def test_holders_that_ask_at_the_same_moment_never_get_more_than_there_is(database: Any) -> None:
    together = threading.Barrier(HOLDERS)
    errors: list[BaseException] = []

    def ask(holder: str) -> None:
        connection = database.connect()
        try:
            connection.execute("insert into holders values (?, ?)", (holder, 0.0))
            for window in range(WINDOWS):
                together.wait(timeout=60)
                lease.take(database, connection, holder, f"key:{window}", 0.0, LIMIT, 10, 60)
        except BaseException as error:
            errors.append(error)
            together.abort()
        finally:
            connection.close()

    threads = [threading.Thread(target=ask, args=(f"h{number}",)) for number in range(HOLDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    connection = database.connect()
    taken = [row[0] for row in connection.execute("select sum(amount_pico_usd) from leases group by account")]
    connection.close()
    assert len(taken) == WINDOWS
    assert max(taken) <= LIMIT
