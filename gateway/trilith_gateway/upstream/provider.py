"""Providers that do not speak OpenAI's protocol, reached through a worker process that holds litellm."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from trilith.errors import InternalServerError
from trilith.seams import Call
from trilith_gateway.upstream.http import HttpReply, HttpUpstream
from trilith_gateway.upstream.provider_worker import TARGET

_READY_S = 120.0
"""How long the worker's start may take (seconds); importing litellm is most of it."""


class ProviderWorker:
    """The worker process, started with the first call and shared by all provider models of one gateway."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._upstream: HttpUpstream | None = None
        self._lock = asyncio.Lock()
        self._users = 0

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def upstream(self) -> HttpUpstream:
        """Return the way to the running worker; starts it, also again after it has died.

        Raises:
            InternalServerError: 503, litellm is not installed or the worker does not start.
        """
        async with self._lock:
            if self._upstream is None or self.pid is None:
                await self._stop()
                await self._start()
            if self._upstream is None:
                raise _unavailable("the provider worker did not start")
            return self._upstream

    async def _start(self) -> None:
        if importlib.util.find_spec("litellm") is None:
            raise _unavailable("litellm is not installed; it comes with: pip install 'trilith[providers]'")
        self._folder = Path(tempfile.mkdtemp(prefix="trilith-"))  # 0700, and short: socket paths are limited
        path = self._folder / "worker.sock"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trilith_gateway.upstream.provider_worker",
            "--socket",
            str(path),
            stdin=asyncio.subprocess.PIPE,  # its end tells the worker that we are gone
            start_new_session=True,
        )
        upstream = HttpUpstream("http://provider/v1", unix_socket=str(path))
        deadline = time.monotonic() + _READY_S
        while not await upstream.ready():
            if self.pid is None or time.monotonic() > deadline:
                await upstream.aclose()
                raise _unavailable("the provider worker ended before it was ready")
            await asyncio.sleep(0.1)
        self._upstream = upstream

    async def _stop(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            await upstream.aclose()
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def enter(self) -> None:
        """Count one more model that calls through it."""
        self._users += 1

    async def leave(self) -> None:
        """Count one less; the last one stops the worker: a reload closes some and keeps the others."""
        self._users -= 1
        if not self._users:
            await self.aclose()

    async def aclose(self) -> None:
        """Stop the worker."""
        async with self._lock:
            await self._stop()


class ProviderUpstream:
    """One provider model behind the worker."""

    def __init__(
        self,
        provider: str,
        *,
        worker: ProviderWorker,
        api_base: str | None = None,
        api_key: str | None = None,
    ) -> None:
        """Take the model in litellm's spelling, and where and with which credential to call it."""
        self._worker = worker
        self._closed = False
        worker.enter()
        self._target = json.dumps({"model": provider, "api_base": api_base, "api_key": api_key})

    async def send(self, call: Call) -> HttpReply:
        """Send one call through the worker; model and credential travel in a header on its private socket."""
        upstream = await self._worker.upstream()
        return await upstream.send(replace(call, headers={**call.headers, TARGET: self._target}))

    async def ready(self) -> bool:
        """Say whether the worker can be started; it is not started for the question."""
        return importlib.util.find_spec("litellm") is not None

    async def aclose(self) -> None:
        """Leave the worker, which stops with the last of its models."""
        if not self._closed:
            self._closed = True
            await self._worker.leave()


def _unavailable(reason: str) -> InternalServerError:
    return InternalServerError(
        f"The provider cannot be called: {reason}.",
        status_code=503,
        code="provider_unavailable",
        type="server_error",
    )
