"""The page of promises names tests that exist, and leaves no test of this folder's files unnamed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "security.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def written_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_every_test_that_a_promise_names_exists(file: str, name: str) -> None:
    assert name in written_in(ROOT / file)


def test_every_promise_names_its_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert len(promises) > 30
    assert [row for row in promises if "::test_" not in row] == []


def test_every_file_of_this_folder_keeps_a_promise() -> None:
    files = {path.name for path in (ROOT / "tests" / "security").glob("test_*.py")} - {Path(__file__).name}
    assert files <= {Path(file).name for file, _ in NAMED}
