"""Runs one engine in a process group of its own and takes the whole group down with itself or its parent.

Usage: python launcher.py COMMAND...; stdin must be a pipe that the parent holds open. When the parent dies,
however it dies, the pipe ends and the group is stopped. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_S = 15.0
"""How long the group may take to end after SIGTERM (seconds)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(command: list[str]) -> int:
    """Run the command until it ends or is told to; returns its exit code."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_parent
    )
    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=_watch_parent, args=(stopping,), daemon=True).start()
    while child.poll() is None and not stopping.is_set():
        stopping.wait(0.1)
    _end(child)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _watch_parent(stopping: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    stopping.set()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the group: politely, then not."""
    for number, patience_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
            while time.monotonic() < deadline:
                child.poll()
                os.killpg(child.pid, 0)
                time.sleep(0.05)
    child.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
