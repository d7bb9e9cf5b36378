"""`make bench-gateway`: the gateway and its peers, in one run.

`python -m bench.gateway [--only nginx,trilith] [--sections cost,behaviour] [--seconds 3] [--quick]`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gateway import behaviour, cost, fault, inference, memory, money, report
from bench.gateway.load import Order
from bench.gateway.ours import OURS
from bench.gateway.peer import NGINX, PEERS
from bench.gateway.target import Missing, Target, upstream

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trilith-bench"
_SECTIONS = ("cost", "behaviour", "memory", "infer", "faults", "money")
_FULL = "trilith full"


@dataclass
class Run:
    """What was asked for, and what has been seen."""

    peers: Path
    folder: Path
    url: str
    sections: list[str]
    seconds: float
    million: int
    cost: dict[str, Any] = field(default_factory=dict)
    behaviour: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def target(self, target: Target, beside: Order | None) -> None:
        """Measure one target."""
        tell(target.name)
        try:
            version = target.version(self.peers)
            folder = self.folder / target.name.replace(" ", "-")
            with target.running(self.peers, folder, self.url) as started:
                order = cost.order(target, started, self.url)
                if "cost" in self.sections:
                    seen = cost.measure(order, beside, self.seconds)
                    ready = {"ready_s": started.ready_s, "ready_cpu_s": started.ready_cpu_s}
                    self.cost[target.name] = {"version": version, **ready, **seen}
                if "behaviour" in self.sections and target.name not in (
                    "trilith bare",
                    "trilith full + tracing",
                ):
                    self.behaviour[target.name] = asyncio.run(behaviour.probe(order))
                if "memory" in self.sections and target.name == _FULL:
                    self.memory[target.name] = memory.measure(order, self.million)
        except (Missing, OSError, TimeoutError, subprocess.CalledProcessError) as error:
            self.why[target.name] = str(error)

    def beside(self, stack: contextlib.ExitStack) -> Order | None:
        """Start the nginx that every target is measured beside."""
        try:
            NGINX.version(self.peers)
            started = stack.enter_context(NGINX.running(self.peers, self.folder / "beside", self.url))
        except Missing as error:
            self.why["nginx, beside each"] = str(error)
            return None
        return cost.order(NGINX, started, self.url)


def tell(what: str) -> None:
    """Say on the side what is being done."""
    print(f"... {what}", file=sys.stderr, flush=True)


def _gateways(run: Run, chosen: list[Target]) -> str:
    with contextlib.ExitStack() as stack:
        beside = run.beside(stack) if "cost" in run.sections else None
        direct = cost.measure_direct(run.url, run.seconds) if "cost" in run.sections else {}
        for target in chosen:
            run.target(target, beside)
    parts = []
    if run.cost:
        parts.append("## Cost\n\n" + cost.report(run.cost, direct))
    if run.behaviour:
        parts.append("## Behaviour\n\n" + behaviour.report(run.behaviour))
    if run.memory:
        parts.append("## Memory\n\n" + memory.report(run.memory))
    return "\n\n".join(parts) + report.missing(run.why)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.gateway", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose names begin so, A,B (default: all)")
    parser.add_argument("--sections", default=",".join(_SECTIONS), help="what is measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="length of a point (%(default)s)")
    parser.add_argument("--million", type=int, default=100_000, help="requests for memory (%(default)s)")
    parser.add_argument("--calls", type=int, default=20_000, help="calls for money (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="nginx and the full gateway, one second a point")
    parser.add_argument("--peers", type=Path, default=_CACHE, help="where peers are installed (%(default)s)")
    given = parser.parse_args()
    only = given.only or ("nginx,trilith full" if given.quick else "")
    sections = [name for name in given.sections.split(",") if name in _SECTIONS]
    seconds = 1.0 if given.quick else given.seconds
    chosen = [target for target in (*PEERS, *OURS) if _wanted(target.name, only, exact=given.quick)]
    given.peers.mkdir(parents=True, exist_ok=True)
    print(report.heading(), flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        others: dict[str, Callable[[], str]] = {
            "infer": lambda: inference.run(given.peers, Path(folder), only, seconds),
            "faults": lambda: fault.run(Path(folder)),
            "money": lambda: money.run(Path(folder), given.calls),
        }
        if {"cost", "behaviour", "memory"} & set(sections):
            with upstream() as url:
                run = Run(given.peers, Path(folder), url, sections, seconds, given.million)
                print("\n" + _gateways(run, chosen), flush=True)
        for name, measure in others.items():
            if name in sections:
                print("\n" + measure(), flush=True)
    print(f"\nload average at the end {' '.join(f'{value:.1f}' for value in os.getloadavg())}")
    return 0


def _wanted(name: str, only: str, *, exact: bool = False) -> bool:
    names = only.split(",")
    return not only or (name in names if exact else name.startswith(tuple(names)))


if __name__ == "__main__":
    sys.exit(main())
