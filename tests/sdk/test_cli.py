"""The `trilith` command itself: what it says when a part, a disk or a reader is missing."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from trilith import cli

TRILITH = str(Path(sys.executable).with_name("trilith"))
COMMANDS = sorted(point.name for point in entry_points(group=cli.GROUP))


def bare(*arguments: str, without: str) -> subprocess.CompletedProcess[str]:
    """Run the command as if one library was not installed."""
    code = f"import sys; sys.modules[{without!r}] = None; from trilith.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a command called `fail` end with an error."""

    def prepare(error: BaseException) -> None:
        class Fail:
            help = "fail"

            def configure(self, parser: object) -> None:
                pass

            def run(self, arguments: object) -> int:
                raise error

        class Point:
            name = "fail"

            def load(self) -> Fail:
                return Fail()

        monkeypatch.setattr(cli, "entry_points", lambda group: [Point()])

    return prepare


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: trilith {name} ")


def test_the_overview_lists_what_is_installed_and_tells_how_to_get_the_rest() -> None:
    shown = bare("--help", without="orjson")
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.startswith("  ")}
    assert sorted(lines) == COMMANDS
    assert lines["costs"].endswith("(pip install 'trilith[gateway]')")
    assert "print every setting" in lines["settings"]


@pytest.mark.parametrize(
    ("command", "without", "extra"),
    [("costs", "orjson", "gateway"), ("serve", "uvicorn", "gateway"), ("eval", "yaml", "evals")],
)
def test_a_part_that_is_not_installed_is_asked_for_in_one_line(
    command: str, without: str, extra: str, tmp_path: Path
) -> None:
    rest = ["run", str(tmp_path / "evals.yaml")] if command == "eval" else []
    (tmp_path / "evals.yaml").touch()
    said = bare(command, *rest, without=without)
    assert said.returncode in (2, 3)
    assert said.stderr == (
        f"trilith {command}: {without} is not installed; it comes with: pip install 'trilith[{extra}]'\n"
    )


def test_a_fault_of_our_own_is_not_taken_for_a_missing_part(raising: Any) -> None:
    raising(ModuleNotFoundError("No module named 'trilith_gateway.lost'", name="trilith_gateway.lost"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["fail"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/trilith.db"), "/x/trilith.db: no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: permission denied"),
        (sqlite3.OperationalError("disk I/O error"), "`home` cannot be used: disk I/O error"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_exit_code_3(
    raising: Any, capsys: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    raising(error)
    assert cli.main(["fail"]) == 3
    assert said in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    lines = f"set -o pipefail; {TRILITH} settings --schema | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "141")


def test_an_unknown_command_is_told_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["dance"]) == 2
    said = capsys.readouterr().err
    assert "'dance' is not a command" in said
    assert all(name in said for name in COMMANDS)
