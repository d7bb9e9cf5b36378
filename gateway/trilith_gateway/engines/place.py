"""Where engines and their models are kept: one folder per user, shared by all projects."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
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
        return Path(named).expanduser().absolute()
    shared = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG specification: a path that is not absolute does not count.
    return (shared if shared.is_absolute() else Path.home() / ".local" / "share") / "trilith"


def engine_folder(build: Build) -> Path:
    """Return where the environment of one vLLM build is."""
    return data_home() / "engines" / f"vllm-{build}-{VERSION}"


def model_folder(name: str = BUNDLED_MODEL) -> Path:
    """Return where a bundled model is."""
    return data_home() / "models" / name


def installed(folder: Path) -> bool:
    """Say whether an installation was finished."""
    return bool(stamp(folder))


def stamp(folder: Path) -> str:
    """Return what a folder was made from; empty where it is absent or unfinished."""
    path = folder / STAMP
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def write_stamp(folder: Path, text: str) -> None:
    """Declare a folder finished."""
    part = folder / f"{STAMP}.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / STAMP)


def users(folder: Path) -> list[int]:
    """Return the processes whose command line names the folder or something in it."""
    mark = os.fsencode(folder)
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = entry.read_bytes().split(b"\0")
            if any(word == mark or word.startswith(mark + b"/") for word in words):
                found.append(int(entry.parent.name))
    return sorted(found)


def fitting_build() -> Build:
    """Return the build for this machine: gpu where an NVIDIA GPU is seen, else cpu."""
    return "gpu" if Path("/dev/nvidia0").exists() or _listed_gpu() else "cpu"


def _listed_gpu() -> bool:
    """Ask nvidia-smi; images made for GPUs have the command on machines without one, too."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return False
    try:
        asked = subprocess.run([command, "-L"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and "GPU " in asked.stdout


def has_bfloat16() -> bool:
    """Say whether the processor computes bfloat16 by itself; without that, float32 is three times faster."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
