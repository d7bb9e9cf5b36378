"""Where engines and their models are kept: one folder per user, shared by all projects."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Literal

Build = Literal["cpu", "gpu"]

VERSION = "0.32.0"
"""The vLLM that is installed."""

BUNDLED_MODEL = "smollm2-135m-instruct"
"""The model that comes inside a package."""

STAMP = "trilith-stamp"
"""File that a finished installation ends with; a folder without it is made anew."""


def data_home() -> Path:
    """Return the user's data folder: `$TRILITH_DATA_HOME`, or trilith's in the XDG data folder."""
    if named := os.environ.get("TRILITH_DATA_HOME"):
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "trilith"


def engine_folder(build: Build) -> Path:
    """Return where the environment of one vLLM build is."""
    return data_home() / "engines" / f"vllm-{build}-{VERSION}"


def model_folder(name: str = BUNDLED_MODEL) -> Path:
    """Return where a bundled model is."""
    return data_home() / "models" / name


def installed(folder: Path) -> bool:
    """Say whether an installation was finished."""
    return (folder / STAMP).is_file()


def fitting_build() -> Build:
    """Return the build for this machine: gpu where an NVIDIA GPU is seen, else cpu."""
    seen = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    return "gpu" if seen else "cpu"


def has_bfloat16() -> bool:
    """Say whether the processor computes bfloat16 by itself; without that, float32 is three times faster."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
