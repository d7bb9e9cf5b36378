"""`make` on a bare machine: what is missing is said in one sentence, what is there is reused."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Usage(NamedTuple):
    """What `shutil.disk_usage` returns (bytes)."""

    total: int
    used: int
    free: int


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout that was never bootstrapped."""
    for folder in ("tools", "requirements"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


@pytest.fixture
def bootstrap(tree: Path) -> ModuleType:
    """The script, loaded from that checkout."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", tree / "tools" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_env(tree: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "env", *(words or [f"PYTHON={sys.executable}"])]
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tree), "PIP_CONFIG_FILE": os.devnull, **environ}
    return subprocess.run(command, cwd=tree, env=bare, capture_output=True, text=True, check=False)


def test_a_current_environment_is_reused_without_a_word(tree: Path, bootstrap: Any) -> None:
    command = tree / ".venv" / "bin" / "trilith"
    command.parent.mkdir(parents=True)
    command.touch()
    bootstrap.STAMP.write_text(bootstrap.digest(), encoding="utf-8")
    made = make_env(tree)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/lock.txt"])
def test_an_environment_of_another_lock_is_not_current(tree: Path, bootstrap: Any, changed: str) -> None:
    before = bootstrap.digest()
    (tree / changed).write_text((tree / changed).read_text(encoding="utf-8") + "\n# new", encoding="utf-8")
    assert bootstrap.digest() != before


def test_a_wrong_python_is_named_in_one_sentence(tree: Path) -> None:
    made = make_env(tree, "PYTHON=/bin/false")
    assert made.returncode != 0
    assert made.stderr.splitlines()[0].startswith("Python 3.11 is missing (/bin/false is not it); install it")


def test_a_missing_network_is_said_in_one_sentence(tree: Path) -> None:
    made = make_env(tree, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    assert made.returncode != 0
    assert made.stderr.startswith("bootstrap: no package index can be reached; connect to a network")


def test_a_full_disk_is_noticed_before_anything_is_fetched(
    bootstrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda _: Usage(10**10, 9 * 10**9, 10**9))
    with pytest.raises(bootstrap.Missing, match=r"1\.0 GB are free on this disk, expected 6 GB or more"):
        bootstrap.make()
    assert not bootstrap.VENV.exists()


def test_a_python_without_venv_is_told_what_to_install(
    bootstrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(bootstrap.Missing, match=r"apt-get install python3\.11-venv"):
        bootstrap.create_venv()


def test_a_lock_takes_releases_of_a_week_ago_and_what_is_named_besides(bootstrap: Any) -> None:
    today = date(2026, 3, 4)
    kept_out = ["--exclude-newer", "2026-02-25T00:00:00Z"]
    assert bootstrap.cooldown(today, [], []) == kept_out
    fresh = ["--exclude-newer-package", "h11=false"]
    assert bootstrap.cooldown(today, ["h11"], []) == kept_out + fresh
    torch = ["--exclude-newer-package", "torch=false"]  # PyTorch's own index tells no dates
    assert bootstrap.cooldown(today, [], ["--torch-backend", "cpu"]) == kept_out + torch


def test_a_lock_says_its_date_and_what_did_not_wait(bootstrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "run", commands.append)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "")
    bootstrap.relock(["uv"], ["h11"])
    text = bootstrap.LOCK.read_text(encoding="utf-8")
    told = re.search(r"^# Resolved on (\S+) from what was released before (\S+)\. (.*)$", text, re.MULTILINE)
    assert told is not None
    assert date.fromisoformat(told[1]) - date.fromisoformat(told[2]) == timedelta(days=7)
    assert told[3] == "Newer for a reason: h11."
    (command,) = commands
    at = command.index("--exclude-newer")
    assert command[at + 1] == f"{told[2]}T00:00:00Z"
    assert "--generate-hashes" in command


def test_torch_comes_from_the_folder_that_pip_knows(
    bootstrap: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert bootstrap.sources() == [
        *("--find-links", str(tmp_path)),
        *("--default-index", "http://127.0.0.1:9/simple"),
    ]


def test_torch_is_the_cpu_build_where_pip_knows_no_folder(
    bootstrap: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "")
    assert bootstrap.sources() == ["--torch-backend", "cpu"]
