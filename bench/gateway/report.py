"""How figures are printed: Markdown tables, with what they were measured on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence

from bench.gateway.ours import commit
from bench.gateway.process import ROOT, processor


def heading() -> str:
    """Return what the figures were measured on."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, commit {commit(ROOT)}, {os.cpu_count()} cores of {processor()}, "
        f"load average {load}, Python {platform.python_version()}. "
        "Targets run on core 0, upstream and load on core 1."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def number(value: float | None, places: int) -> str:
    """Return a number, or a dash where there is none."""
    return "-" if value is None else f"{value:,.{places}f}"


def missing(why: dict[str, str]) -> str:
    """Return the rows that could not be measured, with the reasons."""
    if not why:
        return ""
    rows = [(name, (reason.strip().splitlines() or ["?"])[-1][:160]) for name, reason in why.items()]
    return "\n\n" + table(("not measured", "reason"), rows)
