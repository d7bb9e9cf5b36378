"""A real vLLM for tests: installed by our own installer where it is missing, started once per test run.

    from vllm_fixture import Vllm, vllm  # noqa: F401  (in a conftest.py or a test file)

It writes the prompts that it gets to its log: that is switched on by name, for tests that look for them.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from support.installed import free_port

from trilith.settings.engine import EngineSettings
from trilith_gateway.engines import SupervisedEngine, place, vllm_engine
from trilith_gateway.engines.install import install_model, install_vllm
from trilith_gateway.engines.uv import IndexUnreachable

LOGS_PROMPTS = ("--enable-log-requests", "--log-level", "DEBUG")
"""vLLM 0.32 logs a prompt with both of these only."""


@dataclass(frozen=True)
class Vllm:
    """A running vLLM with the bundled model."""

    base_url: str
    """With `/v1`."""
    served_name: str
    log_path: Path

    def metrics(self) -> dict[str, float]:
        """Return the sum of each Prometheus series, without the prefix `vllm:` and the suffix `_total`.

        For example `prompt_tokens`, `generation_tokens`, `num_requests_running`.
        """
        sums: dict[str, float] = {}
        text = httpx.get(self.base_url.removesuffix("/v1") + "/metrics", timeout=30).text
        for name, value in re.findall(r"^vllm:(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            name = name.removesuffix("_total")
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums

    def logged(self) -> str:
        """Return everything that it logged so far, the prompts included."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")


class _Loop:
    """An event loop in a thread of its own: the engine outlives the loops of single tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def up(self, engine: SupervisedEngine) -> None:
        await engine.start()
        await engine.wait_ready()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


_RUNNING = pytest.StashKey[Vllm]()


def _install() -> None:
    build = place.fitting_build()
    try:
        install_vllm(build)
        install_model(build)
    except IndexUnreachable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"vLLM is not installed, and cannot be: {error}")


@pytest.fixture(scope="session")
def vllm(request: pytest.FixtureRequest) -> Vllm:
    """The run's vLLM; one for all that ask, wherever they import the fixture."""
    stash = request.config.stash
    if _RUNNING not in stash:
        _install()
        folder = tempfile.TemporaryDirectory(prefix="trilith-vllm-")
        settings = EngineSettings(
            port=free_port(),
            dtype="float32",  # the same answers on every processor
            kv_cache_gib=0.5,
            max_model_len=2048,
            args=LOGS_PROMPTS,
        )
        log_path = Path(folder.name) / "vllm.log"
        engine, loop = vllm_engine("smollm2", settings, log_path=log_path), _Loop()

        def stop() -> None:
            asyncio.run_coroutine_threadsafe(engine.stop(), loop.loop).result()
            loop.close()
            folder.cleanup()

        request.config.add_cleanup(stop)
        asyncio.run_coroutine_threadsafe(loop.up(engine), loop.loop).result()
        stash[_RUNNING] = Vllm(engine.base_url, "smollm2", log_path)
    return stash[_RUNNING]
