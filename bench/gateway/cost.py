"""What a request and a streamed chunk cost, in CPU time, beside nginx at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import orjson
from bench.gateway.load import Mode, Order
from bench.gateway.process import ROOT, on_core, rss_mb
from bench.gateway.report import number, table
from bench.gateway.target import Missing, Started, Target

Seen: TypeAlias = dict[str, Any]

_SLOW_PER_S = 200
"""Below this rate, more connections would only be cut off in the middle of their answers."""
_STEADY_PER_S = 1000.0
"""The steady rate (requests per second); for a target that cannot take twice that, half of what it takes."""


def load(order: Order) -> Seen:
    """Run the load on core 1.

    Raises:
        Missing: answers failed.
    """
    command = on_core(1, sys.executable, "-m", "bench.gateway.load", order.json())
    patience = 60 + 3 * order.seconds + order.requests / 100
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise Missing(f"the load did not end within {patience:.0f} s") from None
    if done.returncode:
        raise Missing(f"the load failed: {done.stderr[-200:]}")
    found: Seen = orjson.loads(done.stdout)
    if not found["requests"] or found["failed"] > order.connections:
        raise Missing(f"{found['failed']} answers failed: {found['sample'][:160]!r}")
    return found


def order(target: Target, started: Started, upstream: str) -> Order:
    """Return what is asked of a target; mode and number are still to be said."""
    return Order(
        port=started.port,
        key=started.key,
        path=target.path,
        model=target.model,
        upstream=upstream,
        pid=started.pid,
    )


def measure(asked: Order, beside: Order | None, seconds: float) -> Seen:
    """Measure one target; the CPU figures also of nginx, right after each."""

    def run(connections: int, mode: Mode, what: Order = asked) -> Seen:
        return load(replace(what, connections=connections, mode=mode, seconds=seconds))

    idle = rss_mb(asked.pid)
    warm = run(4, "whole")
    most = 64 if warm["per_s"] > _SLOW_PER_S else 4
    found: Seen = {"idle_mb": idle, "most": most}
    for count in (1, 16, 64):
        found[f"c{count}"] = run(min(count, most), "whole")
    if beside is not None:
        found["c64 beside"] = run(64, "whole", beside)
    rate = min(_STEADY_PER_S, warm["per_s"] / 2)
    found["steady"] = load(replace(asked, connections=min(16, most), per_s=rate, seconds=seconds))
    if beside is not None:
        found["steady beside"] = load(replace(beside, connections=min(16, most), per_s=rate, seconds=seconds))
    found["flood"] = run(4, "flood")
    if beside is not None:
        found["flood beside"] = run(4, "flood", beside)
        found["first beside"] = run(1, "first", beside)
    found["first"] = run(1, "first")
    found["paced"] = run(min(16, most), "paced")
    found["loaded_mb"] = rss_mb(asked.pid)
    return found


def measure_direct(upstream: str, seconds: float) -> Seen:
    """Measure the model server without a gateway: what time alone says."""
    asked = Order(port=int(upstream.rpartition(":")[2]), key="bench")
    points: tuple[tuple[str, int, Mode], ...] = (
        ("first", 1, "first"),
        ("paced", 16, "paced"),
        ("c1", 1, "whole"),
    )
    return {
        name: load(replace(asked, connections=count, mode=mode, seconds=seconds))
        for name, count, mode in points
    }


def report(found: Mapping[str, Seen], direct: Seen) -> str:
    """Return both tables."""
    return f"{_requests(found)}\n\n{_streams(found, direct)}"


def ratio(seen: Seen, point: str, field: str) -> float | None:
    """Return a figure as a multiple of nginx's beside it."""
    beside = seen.get(f"{point} beside")
    return seen[point][field] / beside[field] if beside else None


def _requests(found: Mapping[str, Seen]) -> str:
    rows = []
    for name, seen in found.items():
        rates = " / ".join(f"{seen[c]['per_s']:,.0f}" for c in ("c1", "c16", "c64"))
        rows.append(
            (
                name,
                seen["version"],
                number(seen["c64"]["cpu_us"], 1),
                number(ratio(seen, "c64", "cpu_us"), 2),
                f"{number(seen['steady']['cpu_us'], 0)} ({seen['steady']['per_s']:,.0f}/s)",
                number(ratio(seen, "steady", "cpu_us"), 2),
                rates,
                number(seen["c1"]["p50_us"], 0),
                f"{seen['idle_mb']:.0f} / {seen['loaded_mb']:.0f}",
                f"{seen['ready_s']:.2f} ({seen['ready_cpu_s']:.2f})",
            )
        )
    return table(
        (
            "target",
            "version",
            "CPU us a request",
            "/ nginx",
            "CPU us, steady rate",
            "/ nginx at that rate",
            "requests/s c=1 / 16 / 64",
            "p50 us c=1",
            "MB idle / loaded",
            "ready s (CPU s)",
        ),
        rows,
    )


def _streams(found: Mapping[str, Seen], direct: Seen) -> str:
    rows = []
    base = direct["first"]["first_p50_us"]
    gaps = f"{direct['paced']['gap_p50_us'] / 1e3:.2f} / {direct['paced']['gap_p99_us'] / 1e3:.2f}"
    rows.append(("direct", "-", "-", "-", "-", gaps))
    for name, seen in found.items():
        added = (seen["first"]["first_p50_us"] - base) / 1e3
        beside = seen.get("first beside")
        over = (seen["first"]["first_p50_us"] - beside["first_p50_us"]) / 1e3 if beside else None
        rows.append(
            (
                name,
                number(seen["flood"]["cpu_us_chunk"], 2),
                number(ratio(seen, "flood", "cpu_us_chunk"), 2),
                number(added, 2),
                number(over, 2),
                f"{seen['paced']['gap_p50_us'] / 1e3:.2f} / {seen['paced']['gap_p99_us'] / 1e3:.2f}",
            )
        )
    return table(
        (
            "target",
            "CPU us a chunk",
            "/ nginx",
            "first token: ms over direct, p50",
            "ms over nginx, p50",
            "gap p50 / p99 ms, 16 streams",
        ),
        rows,
    )
