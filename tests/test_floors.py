"""Packages import only from floors below their own, and the check of that turns red when one does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHELVES = ["sdk", "gateway", "rag", "classical", "evals", "governance"]
LINT = Path(sysconfig.get_path("scripts")) / "lint-imports"


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run the import contracts over the packages in `tree` and no others."""
    path = os.pathsep.join(str(tree / shelf) for shelf in SHELVES)
    command = [str(LINT), "--no-cache", "--config", "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages and their contracts."""
    for shelf in SHELVES:
        shutil.copytree(ROOT / shelf, tmp_path / shelf, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_floors_hold() -> None:
    linted = lint(ROOT)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("module", "upwards", "contract"),
    [
        ("sdk/trilith/upwards.py", "trilith_gateway", "floors"),
        ("governance/trilith_governance/upwards.py", "trilith_evals", "floors"),
        ("rag/trilith_rag/sideways.py", "trilith_classical", "floors"),
        ("evals/trilith_evals/upwards.py", "trilith_rag", "evals judge any target"),
        ("sdk/trilith/types.py", "trilith.money", "types and errors stand on nothing of ours"),
    ],
)
def test_an_import_upwards_turns_the_floors_red(tree: Path, module: str, upwards: str, contract: str) -> None:
    with (tree / module).open("a", encoding="utf-8") as file:
        file.write(f"\nimport {upwards}\n")
    linted = lint(tree)
    assert linted.returncode == 1
    broken = [line for line in linted.stdout.splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken), linted.stdout
