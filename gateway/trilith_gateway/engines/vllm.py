"""How vLLM's server is started on this machine, for a user's settings."""

from __future__ import annotations

import math
import os
from pathlib import Path

from trilith.errors import EngineError
from trilith.settings.schema import EngineSettings
from trilith_gateway.engines import place
from trilith_gateway.engines.supervised import SupervisedEngine


def vllm_engine(name: str, settings: EngineSettings, *, log_path: Path) -> SupervisedEngine:
    """Return the engine that the settings describe; it is not started yet.

    Raises:
        EngineError: vLLM, or the bundled model that is asked for, is not installed.
    """
    build = installed_build()
    model = model_path(settings.model)
    return SupervisedEngine(
        name,
        command(name, settings, build, model),
        port=settings.port,
        log_path=log_path,
        environment=environment(settings, local=os.path.isdir(model)),
        ready_timeout_s=settings.ready_timeout_s,
    )


def installed_build() -> place.Build:
    """Return the installed build that fits this machine best."""
    builds: tuple[place.Build, ...] = ("gpu", "cpu") if place.fitting_build() == "gpu" else ("cpu",)
    for build in builds:
        if place.installed(place.engine_folder(build)):
            return build
    raise EngineError("vLLM is not installed; install it with: trilith engines install vllm")


def model_path(model: str) -> str:
    """Return what vLLM takes as `--model`."""
    if model != place.BUNDLED_MODEL:
        return model
    folder = place.model_folder()
    if not place.installed(folder):
        raise EngineError(
            f"the model {model!r} is not installed; install it with: trilith engines install vllm"
        )
    return str(folder)


def command(name: str, settings: EngineSettings, build: place.Build, model: str) -> list[str]:
    """Return the command line of vLLM's OpenAI-compatible server."""
    dtype = settings.dtype
    if dtype == "auto" and build == "cpu":
        dtype = "bfloat16" if place.has_bfloat16() else "float32"
    python = place.engine_folder(build) / "bin" / "python"
    # The CPU build has no `vllm` command; the module is the same server in both.
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", model,
        "--served-model-name", name,
        "--dtype", dtype,
        "--max-model-len", str(settings.max_model_len),
        "--host", "127.0.0.1",
        "--port", str(settings.port),
        *(["--enforce-eager"] if build == "cpu" else []),
        *settings.args,
    ]  # fmt: skip


def environment(settings: EngineSettings, *, local: bool) -> dict[str, str]:
    """Return what is added to the environment: nothing is reported, and nothing fetched for a local model."""
    added = {
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(math.ceil(settings.kv_cache_gib)),
        "PYTHONUNBUFFERED": "1",
    }
    return added | ({"HF_HUB_OFFLINE": "1"} if local else {})
