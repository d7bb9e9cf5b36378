"""A real Redis (or Valkey) of the tests' own, on a free port of this machine, without a disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

_CACHE = Path.home() / ".cache" / "trilith-tests" / "redis"
_PACKAGES = "redis-server redis-tools libatomic1 libjemalloc2 liblzf1 liblua5.1-0 lua-bitop lua-cjson".split()


class RedisServer:
    """The server's process; it can be stopped and started again, on the same port and empty."""

    def __init__(self) -> None:
        self._command, self._environment = _installed()
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [self._command, *options], env=self._environment, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _installed() -> tuple[str, dict[str, str]]:
    """Return the server's program and its environment; CI fetches it, elsewhere its absence skips."""
    environment = dict(os.environ)
    for name in ("redis-server", "valkey-server"):
        if (found := shutil.which(name)) is not None:
            return found, environment
    program = _CACHE / "usr" / "bin" / "redis-check-rdb"  # redis-server is a link to it
    if not program.exists():
        if "CI" not in os.environ:
            pytest.skip("no redis-server here: apt-get install redis-server; CI fetches it by itself")
        _fetch()
    environment["LD_LIBRARY_PATH"] = str(next(_CACHE.glob("usr/lib/*-linux-gnu")))
    return str(_CACHE / "usr" / "bin" / "redis-server"), environment


def _fetch() -> None:
    """Unpack Debian's packages into the cache; nothing of the system is changed."""
    folder = _CACHE / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
    subprocess.run(["apt-get", "download", "-qq", *_PACKAGES], cwd=folder, check=True, capture_output=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(_CACHE)], check=True)
