"""`make bench-gateway`: the gateway and its peers, one after the other, in one run.

`python -m bench.gateway [--only nginx,trilith] [--seconds 3] [--peers FOLDER]`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.gateway.target import ROOT, TARGETS, Missing, Started, Target, free_port, rss_mb

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trilith-bench"
Seen = dict[str, Any]


@contextmanager
def upstream() -> Iterator[str]:
    """Run the model server on core 1."""
    port = free_port()
    process = subprocess.Popen(
        ["taskset", "-c", "1", sys.executable, "-m", "bench.gateway.upstream", str(port)], cwd=ROOT
    )
    time.sleep(0.7)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def load(port: int, connections: int, seconds: float, mode: str, key: str, pid: int, url: str) -> Seen:
    """Run the load on core 1."""
    command = ["taskset", "-c", "1", sys.executable, "-m", "bench.gateway.load"]
    arguments = [str(port), str(connections), str(seconds), mode, key, str(pid)]
    environment = {**os.environ, "BENCH_UPSTREAM": url}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"the load failed: {done.stderr[-200:]}")
    found: Seen = json.loads(done.stdout)
    if not found["cpu_us"] or found["failed"] > connections:
        raise Missing(f"{found['failed']} answers failed: {found['sample'][:160]!r}")
    return found


def measure(target: Target, peers: Path, folder: Path, url: str, seconds: float) -> Seen:
    """Measure one target."""
    version = target.version(peers)
    with target.running(peers, folder, url) as started:
        return {"version": version, "ready_s": started.ready_s, **_points(started, url, seconds)}


def _points(started: Started, url: str, seconds: float) -> Seen:
    def run(connections: int, mode: str) -> Seen:
        return load(started.port, connections, seconds, mode, started.key, started.pid, url)

    idle = rss_mb(started.pid)
    warm = run(4, "whole")
    most = 64 if warm["per_s"] > 200 else 4  # slow ones would be cut off in the middle of their answers
    points = {f"c{count}": run(min(count, most), "whole") for count in (1, 16, 64)}
    return {
        "idle_mb": idle,
        **points,
        "warm": warm,
        "flood": run(4, "flood"),
        "one": run(1, "paced"),
        "paced": run(min(16, most), "paced"),
        "loaded_mb": rss_mb(started.pid),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.gateway", description=__doc__)
    parser.add_argument("--only", default="", help="rows whose names begin so, A,B (default: all)")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--peers", type=Path, default=_CACHE, help="where peers are installed (%(default)s)")
    arguments = parser.parse_args()
    chosen = [t for t in TARGETS if not arguments.only or t.name.startswith(tuple(arguments.only.split(",")))]
    arguments.peers.mkdir(parents=True, exist_ok=True)
    found: dict[str, Seen] = {}
    why: dict[str, str] = {}
    with upstream() as url, tempfile.TemporaryDirectory() as folder:
        for target in chosen:
            print(f"... {target.name}", file=sys.stderr, flush=True)
            try:
                found[target.name] = measure(
                    target,
                    arguments.peers,
                    Path(folder) / target.name.replace(" ", "-"),
                    url,
                    arguments.seconds,
                )
            except (Missing, OSError, subprocess.CalledProcessError) as error:
                why[target.name] = str(error)
    print(report(found, why))
    return 0


def report(found: dict[str, Seen], why: dict[str, str]) -> str:
    """Return the tables in Markdown."""
    base = found.get("nginx")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M')}, {machine}; target on core 0, upstream and load on core 1.",
        "",
        "| target | version | CPU us a request (c=64) | / nginx | req/s c=1 / 16 / 64 | p50 us c=1 "
        "| MB idle / loaded | ready s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, seen in found.items():
        cpu = seen["c64"]["cpu_us"]
        ratio = f"{cpu / base['c64']['cpu_us']:.1f}" if base else "-"
        rates = " / ".join(f"{seen[c]['per_s']:,.0f}" for c in ("c1", "c16", "c64"))
        memory = f"{seen['idle_mb']:.0f} / {seen['loaded_mb']:.0f}"
        lines.append(
            f"| {name} | {seen['version']} | {cpu:,.1f} | {ratio} | {rates} | {seen['c1']['p50_us']:,.0f} "
            f"| {memory} | {seen['ready_s']:.1f} |"
        )
    lines += [f"| {name} | - | {reason.splitlines()[-1][:120]} | | | | | |" for name, reason in why.items()]
    lines += [
        "",
        "| target | CPU us a chunk (flood) | / nginx | first token p50 ms, 1 stream "
        "| gap p50 / p99 ms, 16 streams |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, seen in found.items():
        cpu = seen["flood"]["cpu_us_chunk"]
        ratio = f"{cpu / base['flood']['cpu_us_chunk']:.1f}" if base else "-"
        gaps = f"{seen['paced']['gap_p50_us'] / 1e3:.2f} / {seen['paced']['gap_p99_us'] / 1e3:.2f}"
        first = seen["one"]["first_p50_us"] / 1e3
        lines.append(f"| {name} | {cpu:.2f} | {ratio} | {first:.2f} | {gaps} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
