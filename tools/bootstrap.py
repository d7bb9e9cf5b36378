"""Makes the project's environment `.venv` from the lock, or finds that it is current and says nothing.

Needs only Python 3.11 with venv. Everything is installed by hash through uv, which is fetched (by hash
as well) into `.uv/` where the machine has none. What is missing on the machine is said in one sentence.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TOOLS = ROOT / ".uv"
LOG = TOOLS / "bootstrap.log"
STAMP = VENV / ".trilith-stamp"
LOCK = ROOT / "requirements" / "lock.txt"
UV_LOCK = ROOT / "requirements" / "uv.txt"
PYTHON = (3, 11)
# The environment takes 3.3 GB; the cache of wheels beside it holds about as much until it is hard-linked.
FREE_GB = 6
OLDEST_UV = (0, 6)  # --torch-backend
HEARTBEAT_S = 15
COOLDOWN_DAYS = 7
"""How old a release must be before the lock takes it: malicious ones are found within days."""


class Missing(Exception):
    """What the machine lacks, in one sentence that says how to get it."""


def main() -> int:
    """Make the environment where it is not current; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Make .venv from requirements/lock.txt where it is not current."
    )
    parser.add_argument(
        "--lock", action="store_true", help="resolve pyproject.toml again into requirements/lock.txt"
    )
    parser.add_argument(
        "--fresh",
        metavar="NAME",
        action="append",
        default=[],
        help=f"with --lock: take this package's newest release, and not one of {COOLDOWN_DAYS} days ago",
    )
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # imports without byte-code take 2 to 4 times as long
    try:
        if arguments.lock:
            relock(uv_command(own=True), arguments.fresh)
        elif stamp() != digest():
            TOOLS.mkdir(exist_ok=True)
            with one_at_a_time():
                if stamp() != digest():
                    make()
    except Missing as missing:
        print(f"bootstrap: {missing}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def digest() -> str:
    """Return what the environment is made from, as one hash."""
    parts = [LOCK.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), f"{sys.version} {ROOT}".encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def stamp() -> str:
    """Return what the present environment was made from; empty where there is none."""
    if not (VENV / "bin" / "trilith").exists():
        return ""
    return STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""


def make() -> None:
    """Create or bring up to date the environment, in four steps."""
    started = time.monotonic()
    if not (VENV / "bin" / "trilith").exists():
        require_disk()
    step(1, "a virtual environment in .venv")
    create_venv()
    step(2, "uv, which installs the rest")
    uv = uv_command()
    count = sum(1 for line in LOCK.read_text(encoding="utf-8").splitlines() if re.match(r"[a-z0-9]", line))
    step(3, f"{count} packages from requirements/lock.txt (the first time 3 GB, some minutes)")
    STAMP.unlink(missing_ok=True)
    python = str(VENV / "bin" / "python")
    exactly = ["--require-hashes", "--compile-bytecode", *sources()]
    run([*uv, "pip", "sync", "--python", python, *exactly, str(LOCK)])
    step(4, "this project, editable")
    alone = ["--no-deps", "--no-build-isolation", "--offline"]
    run([*uv, "pip", "install", "--python", python, *alone, "-e", str(ROOT)])
    STAMP.write_text(digest(), encoding="utf-8")
    say(f"ready in {time.monotonic() - started:.0f} s")


def require_disk() -> None:
    """Refuse before a download that cannot fit."""
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < FREE_GB:
        raise Missing(
            f"{free_gb:.1f} GB are free on this disk, expected {FREE_GB} GB or more; make room and try again."
        )


def create_venv() -> None:
    """Create `.venv` with this Python, or keep the one that this Python made."""
    python = VENV / "bin" / "python"
    if python.exists():
        made_by = subprocess.run(
            [python, "-c", "import sys; print(sys.version)"], capture_output=True, text=True
        )
        if made_by.stdout.strip() == sys.version.strip():
            return
        say("the environment is another Python's; making it anew")
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it; venv then fails halfway
        import venv
    except ImportError:
        raise Missing(
            "this Python has no venv module; install it (on Debian: apt-get install python3.11-venv)."
        ) from None
    venv.create(VENV, clear=True, with_pip=True)


def uv_command(*, own: bool = False) -> list[str]:
    """Return the command of uv: the machine's where it is new enough, else ours, fetched when missing.

    Args:
        own: Take ours in any case.
    """
    found = shutil.which("uv")
    if found and not own and version_of(found) >= OLDEST_UV:
        return [found]
    ours = TOOLS / "bin" / "uv"
    pin = re.search(r"^uv==([0-9.]+)", UV_LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    wanted = tuple(int(part) for part in pin[1].split(".")) if pin else ()
    if not ours.exists() or version_of(str(ours)) != wanted:
        create_venv()
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        run([*pip, "--require-hashes", "--no-deps", "--upgrade", "--target", str(TOOLS), "-r", str(UV_LOCK)])
    return [str(ours)]


def version_of(uv: str) -> tuple[int, ...]:
    """Return uv's version, empty where it does not run."""
    try:
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    return tuple(int(part) for part in numbers.groups()) if numbers else ()


def sources() -> list[str]:
    """Return uv's options for where wheels come from: pip's configuration, which uv does not read.

    A folder in `find-links` that holds torch's CPU wheel is where torch comes from; without one uv takes
    it from PyTorch's own index. Any other build of torch would bring gigabytes of CUDA.
    """
    options = []
    links = configured("find-links")
    for link in links:
        options += ["--find-links", link]
    for index in configured("index-url")[:1]:
        options += ["--default-index", index]
    if not any(list(Path(link).glob("torch-*")) for link in links if Path(link).is_dir()):
        options += ["--torch-backend", "cpu"]
    return options


def configured(option: str) -> list[str]:
    """Return the values of one of pip's options: environment before configuration file."""
    text = os.environ.get("PIP_" + option.upper().replace("-", "_"))
    if text is None:
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "config", "get", f"global.{option}"]
        text = subprocess.run(pip, capture_output=True, text=True, check=False).stdout
    return text.split()


def cooldown(today: date, fresh: Sequence[str], places: Sequence[str]) -> list[str]:
    """Return uv's options that keep releases out which are too young.

    Args:
        today: The day of the resolution.
        fresh: Packages that need not wait: a fix that is more urgent than the wait is good.
        places: uv's options for where wheels come from.
    """
    options = ["--exclude-newer", f"{today - timedelta(days=COOLDOWN_DAYS)}T00:00:00Z"]
    free = [*fresh, *(["torch"] if "--torch-backend" in places else [])]  # its own index tells no dates
    return options + [part for name in free for part in ("--exclude-newer-package", f"{name}=false")]


def relock(uv: list[str], fresh: Sequence[str] = ()) -> None:
    """Resolve `pyproject.toml` with every extra into the lock, with a hash for every file."""
    today, places = datetime.now(UTC).date(), sources()
    options = [
        "--all-extras",
        "--group",
        "dev",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-header",
    ]
    options += ["--no-emit-find-links", "--no-emit-index-url", "--index-strategy", "unsafe-best-match"]
    say("resolving pyproject.toml")
    run(
        [
            *uv,
            "pip",
            "compile",
            "pyproject.toml",
            *options,
            *places,
            *cooldown(today, fresh, places),
            "--quiet",
            "-o",
            "requirements/lock.txt",
        ]
    )
    pins = LOCK.read_text(encoding="utf-8")
    LOCK.write_text(header(today, fresh) + pins, encoding="utf-8")
    say(f"requirements/lock.txt: {len(re.findall('^[a-z0-9]', pins, re.MULTILINE))} packages")


def header(today: date, fresh: Sequence[str]) -> str:
    """Return the lock's opening lines, which say when it was resolved and from what."""
    before = today - timedelta(days=COOLDOWN_DAYS)
    waits = f" Newer for a reason: {', '.join(fresh)}." if fresh else ""
    return f"{LOCK_HEADER}#\n# Resolved on {today} from what was released before {before}.{waits}\n"


LOCK_HEADER = """\
# Every package of every extra and of the development group, for Python 3.11 on Linux x86-64, by hash.
# Made by `make lock` from pyproject.toml; do not edit. vLLM has an environment of its own.
#
#   uv pip sync --require-hashes --torch-backend cpu requirements/lock.txt
#   pip install --require-hashes --no-deps -r requirements/lock.txt
#
# torch is the CPU build (+cpu), which the package index does not hold: pip finds it in a folder given
# with --find-links, or on PyTorch's CPU index given with --extra-index-url.
"""


def run(command: list[str]) -> None:
    """Run one command, with its output in the log and a sign of life now and then.

    Raises:
        Missing: it failed; the sentence says why as far as the output tells.
    """
    started = time.monotonic()
    # The certificates that the machine trusts, as pip does; uv has had two names for that switch.
    environment = {**os.environ, "UV_NO_PROGRESS": "1", "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    if VENV.exists() and (certificates := configured("cert")):
        environment.setdefault("SSL_CERT_FILE", certificates[0])
    TOOLS.mkdir(exist_ok=True)
    with LOG.open("w", encoding="utf-8") as log:
        log.write(" ".join(command) + "\n")
        log.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=HEARTBEAT_S)
                    break
                except subprocess.TimeoutExpired:
                    say(f"  ... {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if code != 0:
        raise Missing(reason(command[0], code))


# The first that matches the log's text says what is wrong.
_REASONS = (
    (r"No space left on device|os error 28", "the disk is full; make room and try again."),
    (
        r"hash(es)? mismatch|DO NOT MATCH THE HASHES",
        "a package is not the one that the lock names (its hash differs).",
    ),
    (
        r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED",
        "the package index's certificate is not trusted here; set SSL_CERT_FILE to your authority's.",
    ),
    (
        r"dns error|error sending request|Failed to fetch|NewConnectionError|Network is unreachable|timed out"
        r"|Temporary failure in name resolution|Connection refused|tunnel|from versions: none",
        "no package index can be reached; connect to a network, or point pip's configuration at a mirror.",
    ),
)


def reason(command: str, code: int) -> str:
    """Say in one sentence why a command failed, and where its output is."""
    text = LOG.read_text(encoding="utf-8", errors="replace")
    for pattern, sentence in _REASONS:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{sentence} (details: {LOG.relative_to(ROOT)})"
    tail = text.strip().splitlines()[-1] if text.strip() else ""
    return f"{Path(command).name} ended with {code}: {tail} (details: {LOG.relative_to(ROOT)})"


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second `make` wait for the first."""
    with (TOOLS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another bootstrap is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def step(number: int, what: str) -> None:
    """Print one step."""
    say(f"{number}/4 {what}")


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"bootstrap: {text}", flush=True)


if __name__ == "__main__":
    if sys.version_info[:2] != PYTHON:
        found = "{}.{}".format(*sys.version_info[:2])
        print(
            f"bootstrap: this is Python {found}, expected 3.11; install it, or say where it is with "
            "`make PYTHON=/path/to/python3.11`.",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(main())
