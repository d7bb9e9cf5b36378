"""Local engines: installed once per user, run as supervised children of the platform."""

from __future__ import annotations

import asyncio
from pathlib import Path

from trilith.settings.schema import Settings
from trilith_gateway.engines.engine import Engine
from trilith_gateway.engines.supervised import SupervisedEngine
from trilith_gateway.engines.vllm import vllm_engine


class Engines:
    """The engines of one platform."""

    def __init__(self, settings: Settings, home: Path) -> None:
        """Take the settings; logs go to `<home>/logs`."""
        self._settings = settings
        self._logs = home / "logs"
        self._running: dict[str, Engine] = {}

    def url(self, name: str) -> str:
        """Return where an engine answers, with `/v1`."""
        return f"http://127.0.0.1:{self._settings.engines[name].port}/v1"

    async def start_all(self) -> None:
        """Start every engine and wait until all are ready; if one fails, none is left running.

        Raises:
            EngineError: one is not installed, its port is taken, or it does not come up.
        """
        for name, settings in self._settings.engines.items():
            self._running[name] = vllm_engine(name, settings, log_path=self._logs / f"{name}.log")
        try:
            try:
                async with asyncio.TaskGroup() as group:
                    for engine in self._running.values():
                        group.create_task(_bring_up(engine))
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
        except BaseException:
            await self.stop_all()
            raise

    async def stop_all(self) -> None:
        """Stop every engine that was started here."""
        await asyncio.gather(*(engine.stop() for engine in self._running.values()))
        self._running.clear()


async def _bring_up(engine: Engine) -> None:
    await engine.start()
    await engine.wait_ready()


__all__ = ["Engine", "Engines", "SupervisedEngine", "vllm_engine"]
