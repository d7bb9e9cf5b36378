"""The whole platform as a user runs it: the installed `trilith` command in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TRILITH = str(Path(sys.executable).with_name("trilith"))


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], *, seconds: float = 60, what: str = "it") -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(0.05)


@contextmanager
def language_server(script: str = "language_server.py") -> Iterator[str]:
    """Run `trilith.testing.MemoryUpstream` as a server of its own; gives its base URL, with `/v1`."""
    url = f"http://127.0.0.1:{(port := free_port())}/v1"
    child = subprocess.Popen([sys.executable, str(Path(__file__).with_name(script)), str(port)])

    def up() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/models", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        until(up, what="the language server being up")
        yield url
    finally:
        child.kill()
        child.wait()


class Platform:
    """One settings file, its home, and the commands that run on it."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.home = folder / "home"
        self.path = folder / "trilith.yaml"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"home": str(self.home), "gateway": {"port": self.port}, **settings}
        self.path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
        self.environment = {**os.environ, "TRILITH_SETTINGS": str(self.path)}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "gateway.log"

    def command(self, *arguments: str, expect: int = 0) -> str:
        """Run one command and return what it printed."""
        done = subprocess.run(
            [TRILITH, *arguments],
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def start(self, command: str = "serve", *options: str, seconds: float = 120) -> None:
        """Start the gateway (`serve`) or everything (`up`), and wait until every model is ready."""
        self._run([TRILITH, command, *options], seconds)

    def start_as(self, script: str, *arguments: str, seconds: float = 120) -> None:
        """Start the gateway by a script of the tests."""
        self._run([sys.executable, script, *arguments], seconds)

    def _run(self, words: list[str], seconds: float) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
        until(self._ready, seconds=seconds, what=f"{' '.join(words)} being ready")

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=60) as response:
                return all(json.load(response)["models"].values())
        except (urllib.error.URLError, OSError):
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process and return its exit code; None-safe for tests that ended it themselves."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def processes(self) -> list[str]:
        """Return the command lines of running processes that belong to this platform, engines included.

        An engine gets none of our variables; it is known by the log that it writes to.
        """
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                ours = f"TRILITH_SETTINGS={self.path}".encode() in (folder / "environ").read_bytes()
                if ours or (folder / "fd" / "1").readlink().is_relative_to(self.home):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue  # not ours to read, or gone meanwhile
        return [line for line in found if line.strip()]
