"""Several worker processes behind one socket: started, watched, replaced when they die, stopped together."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from trilith_gateway.store.home import HomeLock

_log = logging.getLogger(__name__)

_LEAST_LIFE_S = 1.0
"""A worker that lives shorter than this is replaced after a pause, so that a broken one does not spin."""


class Workers:
    """The parent of a gateway's workers. It accepts nothing itself; the socket is theirs."""

    def __init__(
        self, count: int, home: Path, listener: socket.socket, arguments: Sequence[str], drain_s: float
    ) -> None:
        """Take the home's lock and prepare.

        Args:
            count: How many workers.
            home: The platform's folder.
            listener: The listening socket, which the workers inherit: no connection is lost when one dies.
            arguments: The rest of a worker's command line.
            drain_s: How long a stopping worker may finish its answers (seconds).

        Raises:
            SettingsError: another gateway runs on the home.
        """
        self._lock = HomeLock(home)
        shutil.rmtree(home / "run" / "metrics", ignore_errors=True)  # an earlier gateway's
        self._count = count
        self._listener = listener
        self._arguments = arguments
        self._drain_s = drain_s
        self._processes: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._stopping = False

    def run(self) -> int:
        """Keep the workers running until SIGINT or SIGTERM."""
        self._listener.set_inheritable(True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reload)
        try:
            for worker in range(self._count):
                self._start(worker)
            while not self._stopping:
                self._replace_dead()
                time.sleep(0.05)
            return self._finish()
        finally:
            for process, _ in self._processes.values():
                process.kill()
                process.wait()
            self._lock.close()

    def _start(self, worker: int) -> None:
        descriptor = self._listener.fileno()
        command = [
            sys.executable,
            "-m",
            "trilith_gateway.worker",
            str(worker),
            str(self._count),
            self._lock.token,
            str(descriptor),
        ]
        process = subprocess.Popen(
            [*command, *self._arguments], pass_fds=(descriptor,), start_new_session=True
        )
        self._processes[worker] = (process, time.monotonic())

    def _replace_dead(self) -> None:
        for worker, (process, since) in list(self._processes.items()):
            if process.poll() is None:
                continue
            lived = time.monotonic() - since
            _log.error("worker %d ended (%s) after %.0f s; it is replaced", worker, process.returncode, lived)
            if lived < _LEAST_LIFE_S:
                time.sleep(_LEAST_LIFE_S)
            if not self._stopping:
                self._start(worker)

    def _finish(self) -> int:
        self._tell(signal.SIGTERM)
        until = time.monotonic() + self._drain_s + 5
        codes = []
        for process, _ in self._processes.values():
            try:
                codes.append(process.wait(timeout=max(0.1, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                codes.append(1)
        return 0 if not any(codes) else 1

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:  # asked twice: at once
            self._tell(signal.SIGKILL)
        self._stopping = True

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self._tell(signal.SIGHUP)

    def _tell(self, number: signal.Signals) -> None:
        for process, _ in self._processes.values():
            if process.poll() is None:
                process.send_signal(number)
