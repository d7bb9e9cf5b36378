"""A server in a child process: started, watched, restarted when it dies, and stopped without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from trilith.errors import EngineError

_log = logging.getLogger(__name__)

_LAUNCHER = Path(__file__).with_name("launcher.py")
_POLL_S = 0.25
_MOST_LOG_BYTES = 10 * 1024 * 1024


class SupervisedEngine:
    """An OpenAI-compatible server on a local port.

    Args:
        name: What it calls its model.
        command: How to start it.
        environment: Added to this process's.
        port: Where it answers, on 127.0.0.1.
        log_path: File that takes its output; the previous one is kept as `.1` when it grew large.
        ready_timeout_s: How long one start may take (seconds).
        most_deaths: How many starts may fail in a row before it is given up.
        backoff_s: Pause before the first restart; doubles with each (seconds).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        ready_timeout_s: float = 600.0,
        most_deaths: int = 3,
        backoff_s: float = 1.0,
    ) -> None:
        self.name = name
        self.adopted = False
        """Whether a server that someone else started is used; it is then left running."""
        self.restarts = 0
        """How often it was started again after it had been ready."""
        self._command = list(command)
        self._environment = {**os.environ, **(environment or {})}
        self._port = port
        self._log_path = log_path
        self._ready_timeout_s = ready_timeout_s
        self._most_deaths = most_deaths
        self._backoff_s = backoff_s
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._failure: EngineError | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        """Where it answers, with `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def ready(self) -> bool:
        """Whether it answered when it was last asked, and has not died since."""
        return self._ready.is_set() and self._failure is None

    async def start(self) -> None:
        """Start it, or adopt a healthy server that already serves this model on the port.

        Raises:
            EngineError: the port is taken by something else.
        """
        served = await self._served()
        if served is not None:
            if self.name not in served:
                raise EngineError(
                    f"port {self._port} is taken by a server that does not serve {self.name!r} but {served}; "
                    f"stop it, or set engines.{self.name}.port to a free one"
                )
            self.adopted = True
            self._ready.set()
            return
        if await self._taken():
            raise EngineError(
                f"port {self._port} is taken by something else; stop it, "
                f"or set engines.{self.name}.port to a free one"
            )
        self._rotate()
        self._watch = asyncio.create_task(self._supervise())

    async def wait_ready(self) -> None:
        """Return when it answers.

        Raises:
            EngineError: it was given up; the message holds its last words.
        """
        while not self._ready.is_set():
            if self._failure is not None:
                raise self._failure
            await asyncio.sleep(_POLL_S)
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Stop it and all that it started."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._end()

    async def _supervise(self) -> None:
        deaths, pause_s = 0, self._backoff_s
        while True:
            await self._spawn()
            was_ready = await self._until_ready_or_dead()
            if was_ready:
                self._ready.set()
                deaths, pause_s = 0, self._backoff_s
                await self._alive().wait()
                self._ready.clear()
                self.restarts += 1
                _log.warning("engine %s died; starting it again", self.name)
            else:
                await self._end()
                deaths += 1
                if deaths >= self._most_deaths:
                    self._failure = EngineError(
                        f"engine {self.name!r} did not come up in {deaths} tries; "
                        f"the end of {self._log_path}:\n{self._last_words()}"
                    )
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, pause_s * 2)

    async def _spawn(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(_LAUNCHER),
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C in the terminal is ours to pass on
            )

    async def _until_ready_or_dead(self) -> bool:
        deadline = asyncio.get_running_loop().time() + self._ready_timeout_s
        while self._alive().returncode is None and asyncio.get_running_loop().time() < deadline:
            served = await self._served()
            if served is not None and self.name in served:
                return True
            await asyncio.sleep(_POLL_S)
        return False

    def _alive(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the engine was not started")
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        self._ready.clear()
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # the launcher stops the group
        if process.returncode is None:
            await process.wait()

    async def _served(self) -> list[str] | None:
        """Return the models that a server on the port lists; None when none answers as one should."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"{self.base_url}/models") as response,
            ):
                listed = await response.json(content_type=None)
                return [str(model["id"]) for model in listed["data"]]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError, KeyError):
            return None

    async def _taken(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        writer.close()
        return True

    def _rotate(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _MOST_LOG_BYTES:
            self._log_path.replace(self._log_path.with_suffix(self._log_path.suffix + ".1"))

    def _last_words(self, lines: int = 15) -> str:
        if not self._log_path.exists():
            return "(nothing)"
        text = self._log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(line for line in text.splitlines()[-lines:] if line.strip()) or "(nothing)"
