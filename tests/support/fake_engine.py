"""A tiny model server in real processes, for tests of supervision."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.installed import free_port, until
from trilith_gateway.engines import SupervisedEngine

FAKE = Path(__file__).parents[1] / "gateway" / "engines" / "fake_server.py"


class FakeEngine:
    """One fake server: how to start it, and what it left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "logs" / "tiny.log"
        self.engines: list[SupervisedEngine] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def engine(self, *flags: str, name: str = "tiny", **options: Any) -> SupervisedEngine:
        command = [sys.executable, str(FAKE), str(self.port), name, str(self.folder), *flags]
        options = {"backoff_s": 0.05, **options}
        self.engines.append(SupervisedEngine(name, command, port=self.port, log_path=self.log, **options))
        return self.engines[-1]

    async def up(self, *flags: str, **options: Any) -> SupervisedEngine:
        engine = self.engine(*flags, **options)
        await engine.start()
        await engine.wait_ready()
        return engine

    def by_hand(self, name: str = "tiny") -> subprocess.Popen[bytes]:
        """Start the server as someone else would."""
        words = [sys.executable, str(FAKE), str(self.port), name, str(self.folder)]
        self.processes.append(subprocess.Popen(words, start_new_session=True))
        until((self.folder / "pids").exists, what="the server by hand being up")
        return self.processes[-1]

    def platform(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start another process that supervises the server, and wait until it is ready."""
        script = FAKE.with_name("platform_process.py")
        words = [sys.executable, str(script), str(self.port), str(self.folder), *flags]
        self.processes.append(subprocess.Popen(words))
        until((self.folder / "ready").exists, what="the other platform being ready")
        return self.processes[-1]

    async def close(self) -> None:
        """Stop and kill everything that was started here."""
        for engine in self.engines:
            await engine.stop()
        family = self.family() if (self.folder / "pids").exists() else []
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in filter(alive, family):
            os.kill(pid, signal.SIGKILL)

    def family(self) -> list[int]:
        """The server, its child, and its grandchild in another session."""
        pids = json.loads((self.folder / "pids").read_text(encoding="utf-8"))
        assert len(pids) == 3
        return list(pids)

    def die(self) -> None:
        """Let the server end with exit status 9 and leave its offspring behind."""
        (self.folder / "pids").unlink()
        (self.folder / "die").touch()


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"
