"""Memory of a worker over many requests: is it flat?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bench.gateway.cost import Seen, load
from bench.gateway.load import Order
from bench.gateway.process import rss_mb
from bench.gateway.report import table


def measure(order: Order, requests: int) -> Seen:
    """Send so many requests, noting memory ten times on the way."""
    idle = rss_mb(order.pid)
    found = load(replace(order, connections=64, requests=requests))
    return {"idle_mb": idle, "requests": requests, **found}


def report(found: Mapping[str, Seen]) -> str:
    """Return the table."""
    rows = []
    for name, seen in found.items():
        memory = seen["memory_mb"]
        rows.append(
            (
                name,
                f"{seen['requests']:,}",
                f"{seen['idle_mb']:.1f}",
                " ".join(f"{value:.1f}" for value in memory),
                f"{memory[-1] - memory[4]:+.1f}",
                f"{seen['cpu_us']:.1f}",
            )
        )
    return table(
        ("target", "requests", "MB idle", "MB after each tenth", "MB in the second half", "CPU us a request"),
        rows,
    )
