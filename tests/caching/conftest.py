"""The gateway's own fixtures, and a Redis server that the tests start themselves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway.conftest import start_gateway
from store.conftest import postgres_url, server

__all__ = ["postgres_url", "server", "start_gateway"]

_PACKAGES = ("redis-server", "redis-tools", "libjemalloc2", "liblua5.1-0", "liblzf1", "libatomic1")


class RedisServer:
    """One `redis-server`, without anything on disk; it can be killed and started again."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [*self._command, *options], env=self._environment, stdout=subprocess.DEVNULL
        )
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("redis-server does not come up")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _server() -> tuple[list[str], dict[str, str]] | str:
    """Return how to run a server, or why there is none: the system's own, else Debian's, unpacked beside."""
    if (found := shutil.which("redis-server") or shutil.which("valkey-server")) is not None:
        return [found], dict(os.environ)
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return "there is no redis-server, and no apt-get to fetch it with"
    folder = Path(tempfile.gettempdir()) / f"trilith-redis-{os.getuid()}"
    binary = folder / "usr" / "bin" / "redis-check-rdb"  # what redis-server is a link to
    if not binary.exists():
        folder.mkdir(exist_ok=True)
        fetched = subprocess.run(
            ["apt-get", "download", *_PACKAGES], cwd=folder, capture_output=True, check=False, timeout=300
        )
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, folder], check=True, timeout=60)
        if not binary.exists():
            return f"redis-server cannot be fetched ({fetched.stderr.decode()[-200:].strip()})"
    libraries = [str(path.parent) for path in folder.glob("usr/lib/*/liblzf.so.1")]
    return [str(folder / "usr" / "bin" / "redis-server")], {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(libraries),
    }


@pytest.fixture(scope="session")
def redis_command() -> tuple[list[str], dict[str, str]]:
    found = _server()
    if isinstance(found, str):
        if os.environ.get("CI"):
            pytest.fail(found)
        pytest.skip(found)
    return found


@pytest.fixture
def redis(redis_command: tuple[list[str], dict[str, str]]) -> Iterator[RedisServer]:
    server = RedisServer(*redis_command)
    server.start()
    yield server
    server.stop()
