"""What is measured: how a target is installed, set up and started, always on core 0."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.process import ROOT, cpu_s, family, free_port, on_core

BIN = Path(sys.executable).parent


class Missing(Exception):
    """A target cannot be had here; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where a target is installed and may write, and what it stands before."""

    peers: Path
    """Installed peers, kept between runs."""
    folder: Path
    """This run's, empty at first."""
    port: int
    upstream: str
    """The model server's base URL, without `/v1`."""


@dataclass(frozen=True)
class Started:
    """A running target."""

    port: int
    pid: int
    key: str
    ready_s: float
    ready_cpu_s: float


@dataclass(frozen=True)
class Target:
    """One row of the tables."""

    name: str
    version: Callable[[Path], str]
    """Installs into a folder what is not there yet and returns the version; raises Missing."""
    command: Callable[[Place], list[str]]
    """Writes settings into the folder and returns the command line."""
    key: Callable[[Path], str] = lambda folder: "bench"
    """Makes a key, in the folder."""
    path: str = "/v1/chat/completions"
    model: str = "m"
    environment: tuple[tuple[str, str], ...] = ()
    ready_s: float = 30
    """Longest wait until it is ready (seconds)."""
    ready_path: str = ""
    """Ready when this path answers with 200; without it, when anything answers at all."""
    stop: signal.Signals = signal.SIGKILL

    @contextmanager
    def running(self, peers: Path, folder: Path, upstream: str, *, core: int = 0) -> Iterator[Started]:
        """Run it for as long as the block lasts."""
        folder.mkdir(parents=True, exist_ok=True)
        place = Place(peers, folder, free_port(), upstream)
        command = self.command(place)
        key = self.key(folder)
        environment = {**os.environ, **dict(self.environment)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with (folder / "log").open("w") as log:
            began = time.monotonic()
            process = subprocess.Popen(
                on_core(core, *command),
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                port = self._wait(process, place, began)
                yield Started(port, process.pid, key, time.monotonic() - began, cpu_s(process.pid))
            finally:
                end(process, self.stop)

    def _wait(self, process: subprocess.Popen[bytes], place: Place, began: float) -> int:
        told = place.folder / "port"  # written by those that choose their port themselves
        while True:
            port = int(told.read_text()) if told.exists() else place.port
            if answers(port, self.ready_path):
                return port
            if process.poll() is not None or time.monotonic() - began > self.ready_s:
                said = (place.folder / "log").read_text(errors="replace").strip()
                raise Missing(f"did not start within {self.ready_s:.0f} s: {said[-300:]}")
            time.sleep(0.01 if time.monotonic() - began < 3 else 0.1)


def end(process: subprocess.Popen[bytes], stop: signal.Signals = signal.SIGKILL) -> None:
    """End a process that leads a group of its own, all in it, and all below it in groups of their own."""
    below = family(process.pid)[1:]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, stop)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for left in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def answers(port: int, path: str) -> bool:
    """Say whether a server answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            head = f"GET {path or '/healthz'} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            connection.sendall(head.encode())
            said = connection.recv(15)
            return b" 200" in said if path else said != b""
    except OSError:
        return False


@contextmanager
def upstream() -> Iterator[str]:
    """Run the model server on core 1."""
    port = free_port()
    process = subprocess.Popen(
        on_core(1, sys.executable, "-m", "bench.gateway.upstream", str(port)),
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        while not answers(port, "/v1/models"):
            if process.poll() is not None:
                raise RuntimeError("the model server did not start")
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)
