"""What is charged, beside what was invoiced: simulated calls with faults, through the real nine stages."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from bench import money, virtual
from bench.gateway.report import table

from trilith.money import format_usd

_HEAD = (
    "target",
    "calls",
    "faults of upstreams",
    "invoiced, USD",
    "charged, USD",
    "error, pico-USD",
    "budgets overshot by, pico-USD",
    "rows of the ledger",
    "doubled",
    "reservations left open",
    "unpriced",
    "s",
)
_FAULTS = ("connection failed", "refused", "error billed", "answer cut", "stream broken")


def row(calls: int, found: dict[str, Any], took_s: float) -> tuple[str, ...]:
    """Return a run's row.

    Args:
        calls: How many there were.
        found: What `bench.money.simulate` found.
        took_s: How long that took (seconds).
    """
    faults = sum(found["outcomes"].get(name, 0) for name in _FAULTS)
    counts = (max(0, found["overshoot"]), *(found[name] for name in ("rows", "doubled", "open", "unpriced")))
    return (
        "trilith full, network simulated" + ("" if money.right(found) else ": WRONG"),
        f"{calls:,}",
        f"{faults:,}",
        format_usd(found["invoiced"]),
        format_usd(found["charged"]),
        f"{found['charged'] - found['invoiced']:,}",
        *(f"{count:,}" for count in counts),
        f"{took_s:.0f}",
    )


def run(folder: Path, calls: int, seed: int = 7) -> str:
    """Simulate calls and return the table; the seed makes it repeatable."""
    home = folder / "money"
    began = time.perf_counter()
    try:
        found = virtual.run(money.simulate(calls, seed, home))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return "## Money\n\n" + table(_HEAD, [row(calls, found, time.perf_counter() - began)])
