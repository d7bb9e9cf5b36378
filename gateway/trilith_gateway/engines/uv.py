"""Finds or fetches uv, and runs it with signs of life and one sentence when it fails."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from trilith.errors import EngineError
from trilith_gateway.engines import place

Say = Callable[[str], None]
"""Receives one line of progress."""

_LOCK = Path(__file__).with_name("uv-tool.lock")
_OLDEST = (0, 6)  # the first with --torch-backend
_HEARTBEAT_S = 15


class IndexUnreachable(EngineError):
    """No package index can be reached, so nothing can be installed."""


class Shell:
    """Runs commands one after another, their output in one log."""

    def __init__(self, log: Path, say: Say) -> None:
        """Take the file for the output, begun anew, and where progress is told."""
        self._log = log
        self._say = say
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")

    def run(self, command: Sequence[str]) -> None:
        """Run one command.

        Raises:
            EngineError: it failed; one sentence says why as far as the output tells.
        """
        started = time.monotonic()
        with self._log.open("a", encoding="utf-8") as output:
            output.write(" ".join(command) + "\n")
            output.flush()
            begin = output.tell()
            process = subprocess.Popen(
                command,
                cwd=self._log.parent,
                env=_environment(),
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
            try:
                while (code := _wait(process)) is None:
                    self._say(f"  ... {time.monotonic() - started:.0f} s")
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if code != 0:
            said = self._log.read_bytes()[begin:].decode(errors="replace")
            raise _failure(said, Path(command[0]).name, code, self._log)


def find(shell: Shell, say: Say) -> list[str]:
    """Return uv's command: the one on the path, else this interpreter's module, else our own, by hash."""
    on_path = shutil.which("uv")
    if on_path and _version([on_path]) >= _OLDEST:
        return [on_path]
    module = [sys.executable, "-m", "uv"]
    if importlib.util.find_spec("uv") and _version(module) >= _OLDEST:
        return module
    home = place.data_home() / "tools" / "uv"
    own = [str(home / "bin" / "uv")]
    pinned = re.search(r"^uv==([0-9.]+)", _LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    if pinned is None or ".".join(map(str, _version(own))) != pinned[1]:
        say("fetching uv, which installs the rest")
        shell.run([sys.executable, "-m", "venv", "--clear", str(home)])
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
        shell.run([*pip, "--require-hashes", "--no-deps", "-r", str(_LOCK)])
    return own


def index_options() -> list[str]:
    """Return uv's options for pip's configured index and folders of wheels, which uv does not read."""
    options = [word for link in _pip("find-links") for word in ("--find-links", link)]
    return options + [word for index in _pip("index-url")[:1] for word in ("--default-index", index)]


def cpu_torch_options() -> list[str]:
    """Return the option for torch's own index of CPU builds; none where a configured folder holds one."""
    folders = [Path(link.removeprefix("file://")) for link in _pip("find-links")]
    held = any(list(folder.glob("torch-*+cpu-*")) for folder in folders if folder.is_dir())
    return [] if held else ["--torch-backend", "cpu"]


def _version(command: Sequence[str]) -> tuple[int, ...]:
    """Return uv's version, empty where it does not run."""
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in numbers.groups()) if numbers else ()


def _pip(option: str) -> list[str]:
    """Return the values of one of pip's options: environment before configuration file."""
    text = os.environ.get("PIP_" + option.upper().replace("-", "_"))
    if text is None:
        asked = [sys.executable, "-m", "pip", "config", "get", f"global.{option}"]
        text = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return text.split()


def _environment() -> dict[str, str]:
    """Return our environment, less what leads to our own packages, with the machine's certificates."""
    foreign = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    kept |= {"UV_NO_PROGRESS": "1", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1", "HF_HUB_OFFLINE": "1"}
    if certificates := _pip("cert"):
        kept.setdefault("SSL_CERT_FILE", certificates[0])
    return kept


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=_HEARTBEAT_S)
    except subprocess.TimeoutExpired:
        return None


_REASONS: tuple[tuple[str, type[EngineError], str], ...] = (
    (r"No space left on device|os error 28\b", EngineError, "the disk is full; make room and try again"),
    (
        r"hash(es)? mismatch|DO NOT MATCH THE HASHES",
        EngineError,
        "a package is not the one that the lock names (its hash differs)",
    ),
    (
        r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED",
        EngineError,
        "the package index's certificate is not trusted here; set SSL_CERT_FILE to your authority's",
    ),
    (
        r"No module named (venv|ensurepip)|ensurepip is not available",
        EngineError,
        "this Python has no venv module; install it (on Debian: apt-get install python3-venv)",
    ),
    (
        r"No interpreter found",
        EngineError,
        "Python 3.11 is missing, which this engine needs; install it and try again",
    ),
    (
        r"dns error|error sending request|Failed to fetch|NewConnectionError|Network is unreachable|timed out"
        r"|Temporary failure in name resolution|Connection refused|tunnel|network was disabled",
        IndexUnreachable,
        "no package index can be reached; connect to a network, or point pip's configuration at a mirror",
    ),
)
"""The first that matches the output says what is wrong."""


def _failure(said: str, what: str, code: int, log: Path) -> EngineError:
    for pattern, kind, sentence in _REASONS:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(f"{sentence} (details: {log})")
    last = said.strip().splitlines()[-1:] or ["it said nothing"]
    return EngineError(f"{what} ended with exit status {code}: {last[0]} (details: {log})")
