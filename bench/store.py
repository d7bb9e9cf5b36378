"""CPU time that the store costs one request: its reservation and its charge, with the writer thread's share.

    python bench/store.py [--requests N] [--url postgresql://...]

Wall clocks on shared machines lie, so this reads the process's own CPU time (both threads) and prints
microseconds per request: what the caller's thread paid, and the whole.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trilith_gateway.store.sqlite import SqliteStore

_ROUND = 50
"""Requests that begin before the first of them ends, as under concurrent callers."""


def charge(number: int, now: float) -> dict[str, Any]:
    """Return a ledger row as the settle stage writes it."""
    id = f"{time.time_ns():016x}{number & 0xFFFF:08x}"
    return {
        "t": "charge",
        "id": id,
        "request_id": id,
        "at": now,
        "key_id": "k0123456789",
        "team": "research",
        "model": "small-chat",
        "kind": "chat",
        "release": "0d7f3a9b11c2",
        "status": 200,
        "rule": "usage",
        "price": "5f1e0c44",
        "amount_pico_usd": 123_456_789,
        "input_tokens": 100,
        "output_tokens": 50,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "rows": 0,
        "requests": 1,
        "duration_ms": 12.5,
        "first_byte_ms": None,
        "streamed": 0,
    }


def measure(store: Any, requests: int) -> tuple[float, float]:
    """Return CPU microseconds per request: the calling thread's, and the process's with the writer."""
    hold = getattr(store, "hold", store.append)
    rounds = requests // _ROUND
    begin, own = time.process_time_ns(), 0
    for _ in range(rounds):
        now = time.time()
        rows = [charge(number, now) for number in range(_ROUND)]
        reserves = [
            {"t": "reserve", "id": row["id"], "key_id": row["key_id"], "amount_pico_usd": 1, "at": now}
            for row in rows
        ]
        made = time.thread_time_ns()
        for fact in reserves:
            hold(fact)
        for fact in rows:
            store.append(fact)
        own += time.thread_time_ns() - made
        time.sleep(0.004)  # about 10,000 requests a second: the writer keeps up beside the caller
    store.flush()
    whole = time.process_time_ns() - begin
    bare = time.process_time_ns()
    for _ in range(rounds):
        now = time.time()
        rows = [charge(number, now) for number in range(_ROUND)]
        reserves = [
            {"t": "reserve", "id": row["id"], "key_id": row["key_id"], "amount_pico_usd": 1, "at": now}
            for row in rows
        ]
        time.sleep(0.0002)
    bare = time.process_time_ns() - bare
    return own / 1000 / requests, (whole - bare) / 1000 / requests


def main() -> int:
    """Measure and print one line of JSON per run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--url", help="measure PostgreSQL at this address instead of SQLite")
    arguments = parser.parse_args()
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Path(folder), arguments.url)
            own, whole = measure(store, arguments.requests)
            store.close()
        print(json.dumps({"caller_us": round(own, 2), "whole_us": round(whole, 2)}))
    return 0


def open_store(home: Path, url: str | None) -> Any:
    """Open the store that is measured."""
    if url is None:
        return SqliteStore(home)
    from trilith_gateway.store.postgres import PostgresStore

    return PostgresStore(url, home)


if __name__ == "__main__":
    sys.exit(main())
