"""What a process costs, read from `/proc`, and where it runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def on_core(core: int, *command: str) -> list[str]:
    """Return the command line that runs a command on one core alone; on a machine of one core, as it is."""
    return ["taskset", "-c", str(core), *command] if (os.cpu_count() or 1) > core else list(command)


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    below: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            below.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        found.append(at)
        todo += below.get(at, [])
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and all below it (seconds)."""
    if not pid:
        return 0.0
    ticks = sum(int(f[11]) + int(f[12]) for member in family(pid) if (f := _stat(member)))
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Return the memory of a process and all below it (MB)."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/status").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return total / 1024


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def processor() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"
