"""Runs one engine and takes all of its processes down with itself or its parent, however that one ends.

Usage: python launcher.py PARENT_PID LOCK_FD GRACE_S COMMAND...; stdin must be a pipe that the parent holds
open. The pipe's end, another parent, or SIGTERM mean: stop. LOCK_FD is the port's claim (see port.py), which
lives as long as this process and says "stopping" as soon as the engine is not to be relied on any more.
Standard library and Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

KILL_S = 5.0
"""How long the kernel may take to end what was killed (seconds)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36


def main(parent: int, lock: int, grace_s: float, command: list[str]) -> int:
    """Run the command until it ends or is told to; returns its exit code."""
    libc = ctypes.CDLL(None)
    # What the engine leaves behind becomes our child instead of init's: found, killed and reaped here.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def die_with_us() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_us).pid
    status = None
    while status is None and not asked and os.getppid() == parent:
        readable, _, _ = select.select([0, told], [], [], 1.0)
        if told in readable:
            os.read(told, 4096)
        if 0 in readable and not os.read(0, 4096):
            break
        status = _reap().get(engine)
    os.ftruncate(lock, 0)
    os.pwrite(lock, b"stopping", 0)
    if status is None:
        status = _ask_to_end(engine, grace_s)
    _kill_what_is_left()
    if status is None:
        return 128 + signal.SIGKILL
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _ask_to_end(engine: int, grace_s: float) -> int | None:
    """End the engine politely; returns its wait status, None when it did not listen."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(engine, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        if (status := _reap().get(engine)) is not None:
            return status
        time.sleep(0.05)
    return None


def _kill_what_is_left() -> None:
    """Kill every descendant, until there is none."""
    deadline = time.monotonic() + KILL_S
    while (left := _descendants()) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        _reap()
        time.sleep(0.02)


def _reap() -> dict[int, int]:
    """Collect the children that ended: their wait status by process id."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            ended[process] = status
    return ended


def _descendants() -> set[int]:
    """Return our children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            # pid (name) state ppid ...; the name may hold spaces and parentheses
            parent = int(entry.read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: set[int] = set()
    open_ends = [os.getpid()]
    while open_ends:
        young = children.get(open_ends.pop(), [])
        found.update(young)
        open_ends += young
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
