"""What is installed is what the lock names, and nothing runs at Python's start that is not known."""

from __future__ import annotations

import base64
import hashlib
import re
import sysconfig
import tomllib
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
SITE = Path(sysconfig.get_path("purelib"))
LOCK = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", LOCK, re.MULTILINE))

# A .pth file may run code each time Python starts: it is how litellm 1.82.8 stole credentials.
KNOWN_STARTUP_FILES = {
    "_trilith.pth": "trilith",  # this project, editable: only folders
    "a1_coverage.pth": "coverage",  # measures subprocesses when COVERAGE_PROCESS_START is set
    "distutils-precedence.pth": "setuptools",  # stands in for distutils, which Python 3.12 dropped
}
# Their releases on the package index carried malicious code.
COMPROMISED_LITELLM = re.compile(r"1\.82\.[78]|1\.107(\..*)?")


def startup_faults(site: Path) -> list[str]:
    """List the files in `site` that run at Python's start and are not known, or not as they were released."""
    recorded = {
        file.name: (distribution, file)
        for distribution in distributions(path=[str(site)])
        for file in distribution.files or []
        if file.name.endswith(".pth")
    }
    faults = [file.name for file in site.glob("*customize.py")]
    for path in site.glob("*.pth"):
        distribution, record = recorded.get(path.name, (None, None))
        if distribution is None or record is None:
            faults.append(f"{path.name}: belongs to no package")
        elif KNOWN_STARTUP_FILES.get(path.name) != distribution.name:
            faults.append(f"{path.name}: of {distribution.name}")
        elif record.hash is not None and record.hash.value != sha256(path):
            faults.append(f"{path.name}: not as {distribution.name} released it")
    return faults


def sha256(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_nothing_unknown_runs_when_python_starts() -> None:
    assert startup_faults(SITE) == []


def test_our_own_startup_file_holds_folders_and_no_code() -> None:
    lines = (SITE / "_trilith.pth").read_text(encoding="utf-8").splitlines()
    assert all(Path(line).is_dir() for line in lines)


def test_an_unknown_startup_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "litellm_init.pth").write_text("import os", encoding="utf-8")
    assert startup_faults(tmp_path) == ["litellm_init.pth: belongs to no package"]


def test_a_known_startup_file_with_other_content_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a1_coverage.pth").write_text("import os", encoding="utf-8")
    info = tmp_path / "coverage-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: coverage\nVersion: 1\n", encoding="utf-8")
    (info / "RECORD").write_text("a1_coverage.pth,sha256=AAAA,9\n", encoding="utf-8")
    assert startup_faults(tmp_path) == ["a1_coverage.pth: not as coverage released it"]


@pytest.mark.parametrize("found", [PINS["litellm"], version("litellm")], ids=["locked", "installed"])
def test_litellm_is_none_of_its_compromised_releases(found: str) -> None:
    assert not COMPROMISED_LITELLM.fullmatch(found)


def test_the_project_itself_refuses_the_compromised_litellm() -> None:
    providers = project()["optional-dependencies"]["providers"]
    (litellm,) = (Requirement(text) for text in providers if text.startswith("litellm"))
    assert not any(litellm.specifier.contains(bad) for bad in ("1.82.7", "1.82.8", "1.107.0", "1.107.3"))


@pytest.mark.parametrize("name", ["lock.txt", "uv.txt"])
def test_every_line_of_the_lock_has_a_hash(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert [
        line
        for line in pins
        if not re.fullmatch(r"[a-z0-9._-]+==\S+( ;.+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)
    ] == []


def test_the_lock_names_no_index_host_or_folder() -> None:
    code = "\n".join(line.partition("#")[0] for line in LOCK.splitlines())
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|(?:^|\s)/\w+", code, re.MULTILINE) == []
    assert "://" not in LOCK


def test_what_is_installed_is_what_the_lock_names() -> None:
    installed = {normal(d.name): d.version for d in distributions(path=[str(SITE)])}
    # pip comes with the environment, trilith is this project.
    unknown = set(installed) - set(PINS) - {"pip", "setuptools", "trilith"}
    other = {name: installed[name] for name in PINS if name in installed and installed[name] != PINS[name]}
    assert (unknown, other) == (set(), {})


def test_the_lock_satisfies_every_requirement_of_the_project() -> None:
    groups = [project()["dependencies"], *project()["optional-dependencies"].values(), dev_group()]
    wanted = [Requirement(text) for group in groups for text in group if not text.startswith("trilith[")]
    assert [str(r) for r in wanted if not r.specifier.contains(PINS.get(normal(r.name), "0"))] == []


def test_the_lock_says_when_it_was_resolved_and_took_nothing_younger_than_a_week() -> None:
    told = re.search(r"^# Resolved on (\S+) from what was released before (\S+)\.", LOCK, re.MULTILINE)
    assert told is not None
    resolved, before = map(date.fromisoformat, told.groups())
    assert resolved - before >= timedelta(days=7)
    assert resolved <= datetime.now(UTC).date()


def project() -> Any:
    return _pyproject()["project"]


def dev_group() -> Any:
    return _pyproject()["dependency-groups"]["dev"]


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
