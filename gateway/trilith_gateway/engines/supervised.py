"""A server in a child process: started, watched, restarted when it dies, and stopped without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from trilith.errors import EngineError
from trilith_gateway.engines import port as ports
from trilith_gateway.engines.log import EngineLog
from trilith_gateway.engines.port import PortClaim

_logger = logging.getLogger(__name__)

_LAUNCHER = Path(__file__).with_name("launcher.py")
_POLL_S = 0.25
_PROBE_S = 10.0
_KILL_S = 10.0  # longer than the launcher's own
_WRONG_USAGE = 2  # argparse's exit status: trying again would not help


class SupervisedEngine:
    """An OpenAI-compatible server on a local port.

    Args:
        name: What it calls its model.
        command: How to start it.
        environment: The child's environment.
        port: Where it answers, on 127.0.0.1.
        log_path: File that takes its output; set aside at a start when it grew large.
        model: What `/v1/models` gives as the model's `root`, to tell it from another of the same name.
        ready_timeout_s: How long one start may take (seconds).
        most_deaths: How often in a row it may die before it was steady; then it is given up.
        steady_s: How long after it was ready it counts as steady (seconds).
        backoff_s: Pause before the first restart; doubles with each, up to 30 (seconds).
        grace_s: How long it may take to end before it is killed (seconds); vLLM takes half a second.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int,
        log_path: Path,
        environment: Mapping[str, str] | None = None,
        model: str | None = None,
        ready_timeout_s: float = 600.0,
        most_deaths: int = 3,
        steady_s: float = 60.0,
        backoff_s: float = 1.0,
        grace_s: float = 15.0,
    ) -> None:
        self.name = name
        self.adopted = False
        """Whether a server that someone else started is used; it is neither restarted nor stopped."""
        self.restarts = 0
        """How often it was started again after it had been ready."""
        self._command = list(command)
        self._environment = dict(os.environ if environment is None else environment)
        self._port = port
        self._log = EngineLog(log_path)
        self._model = model
        self._ready_timeout_s = ready_timeout_s
        self._most_deaths = most_deaths
        self._steady_s = steady_s
        self._backoff_s = backoff_s
        self._grace_s = grace_s
        self._claim: PortClaim | None = None
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
        """Whether it has answered since it was last started, and not died."""
        return self._ready.is_set()

    async def start(self) -> None:
        """Begin to start it, or adopt a healthy server that already serves this model on the port.

        Waits while another platform's engine on the port is starting or stopping.

        Raises:
            EngineError: the port is taken by something else.
        """
        self._claim = await self._claimed()
        if self._claim is None:
            self.adopted = True
            self._ready.set()
            return
        self._log.rotate()
        self._watch = asyncio.create_task(self._supervise(self._claim))

    async def wait_ready(self) -> None:
        """Return when it answers.

        Raises:
            EngineError: it was given up; the message holds its last words.
        """
        while not self._ready.is_set():
            if self._failure is not None:
                raise self._failure
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Stop it and all that it started; an adopted one is left alone."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await self._end()
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    async def _claimed(self) -> PortClaim | None:
        """Claim the port; None where a healthy server of ours is there to be adopted."""
        now = asyncio.get_running_loop().time
        deadline = now() + self._ready_timeout_s
        while now() < deadline:
            claim = ports.claim(self._port)
            try:
                answers = (claim is not None or not ports.stopping(self._port)) and await self._answers()
                if claim is not None and not answers:
                    if not ports.free(self._port):
                        raise self._taken("something that is not a model server")
                    return claim
            except BaseException:
                if claim is not None:
                    claim.release()
                raise
            if claim is not None:
                claim.release()
            if answers and (claim is not None or not ports.stopping(self._port)):
                return None
            await asyncio.sleep(_POLL_S)
        raise self._taken("another platform's engine, which does not become ready")

    async def _supervise(self, claim: PortClaim) -> None:
        deaths, pause_s, now = 0, self._backoff_s, asyncio.get_running_loop().time
        while True:
            claim.renew()
            try:
                process = await self._spawn(claim)
            except OSError as error:  # no file, memory or process to be had; waiters must hear of it
                self._give_up(claim, EngineError(f"engine {self.name!r} could not be started: {error}"))
                return
            steady = False
            if was_ready := await self._until_ready(process):
                self._ready.set()
                since = now()
                await process.wait()
                self._ready.clear()
                steady = now() - since >= self._steady_s
            in_time = process.returncode is not None
            await self._end()
            deaths, pause_s = (1, self._backoff_s) if steady else (deaths + 1, pause_s)
            wrong_usage = process.returncode == _WRONG_USAGE and not was_ready
            if deaths >= self._most_deaths or wrong_usage or not in_time:
                self._give_up(claim, self._reason(process.returncode if in_time else None, deaths))
                return
            self.restarts += was_ready
            _logger.warning(
                "engine %s ended with exit status %s; starting it again", self.name, process.returncode
            )
            await asyncio.sleep(pause_s)
            pause_s = min(30.0, pause_s * 2)

    async def _spawn(self, claim: PortClaim) -> asyncio.subprocess.Process:
        launcher = [sys.executable, "-I", str(_LAUNCHER), str(os.getpid()), str(claim.fd), str(self._grace_s)]
        with self._log.open() as log:
            self._process = await asyncio.create_subprocess_exec(
                *launcher,
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=(claim.fd,),
                start_new_session=True,  # Ctrl-C in the terminal is ours to pass on
            )
        return self._process

    async def _until_ready(self, process: asyncio.subprocess.Process) -> bool:
        now = asyncio.get_running_loop().time
        deadline = now() + self._ready_timeout_s
        while process.returncode is None and now() < deadline:
            with contextlib.suppress(EngineError):  # whose port it is was settled before
                if await self._answers():
                    return True
            await asyncio.sleep(_POLL_S)
        return False

    async def _end(self) -> None:
        """Have the launcher stop everything; kill the lot where the launcher itself is gone or stuck."""
        process, self._process = self._process, None
        self._ready.clear()
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), self._grace_s + _KILL_S)
        if process.returncode is None or process.returncode < 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _answers(self) -> bool:
        """Say whether a healthy server of this model is on the port.

        Raises:
            EngineError: a server of another model is.
        """
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_S)) as session:
                async with session.get(f"http://127.0.0.1:{self._port}/health") as response:
                    healthy = response.ok
                async with session.get(f"{self.base_url}/models") as response:
                    listed = await response.json(content_type=None)
            served = {str(model["id"]): model.get("root") for model in listed["data"]}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, TypeError, KeyError, AttributeError):
            return False
        if self.name not in served or (self._model is not None and served[self.name] != self._model):
            seen = ", ".join(f"{name!r} ({root})" for name, root in served.items())
            raise self._taken(f"a server of {seen or 'no model'}, expected {self.name!r} ({self._model})")
        return healthy

    def _taken(self, by: str) -> EngineError:
        return EngineError(
            f"port {self._port} is taken by {by}; stop that, or set engines.{self.name}.port to a free one"
        )

    def _give_up(self, claim: PortClaim, failure: EngineError) -> None:
        self._failure = failure
        _logger.error("%s", failure)
        claim.release()  # another platform may try
        self._claim = None

    def _reason(self, status: int | None, deaths: int) -> EngineError:
        what = (
            f"was not ready after {self._ready_timeout_s:g} s (engines.{self.name}.ready_timeout_s)"
            if status is None
            else f"ended {deaths} time{'s' * (deaths > 1)} in a row, the last with exit status {status}"
        )
        return EngineError(f"engine {self.name!r} {what}; {self._log.path} ends:\n{self._log.last_words()}")
