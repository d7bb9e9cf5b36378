"""Commands around the gateway, given what they cannot use: one line, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from trilith.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(line: str) -> int:
    """The exit code of a command, also where its options are refused."""
    try:
        return main(line.split())
    except SystemExit as refused:
        return int(refused.code or 0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("costs --by planet", "--by is 'planet', expected some of key, team, "),
        ("costs --by ,", "--by is ',', expected some of key, team, "),
        ("keys create a --budget-usd x", "'x' is no amount of US dollars such as 5 or 0.25"),
        ("keys create a --budget-usd=-1", "'-1' is no amount of US dollars"),
        ("keys create a --budget-usd 1e30", "'1e30' is no amount of US dollars"),
        ("keys revoke nobody", "no valid key has the id 'nobody'"),
        ("serve --host 192.0.2.1 --port 0", "cannot listen on 192.0.2.1:0"),
        ("serve --settings gone.yaml", "gone.yaml does not exist"),
    ],
)
def test_a_value_that_cannot_be_used_is_told_with_what_was_expected(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    "line",
    [
        "serve --workers 0",
        "audit list --limit -3",
        "traces --limit 0",
        "keys create a --requests-per-minute 99999999999",
    ],
)
def test_a_number_that_counts_something_is_at_least_one_and_no_giant(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(line.split())
    assert left.value.code == 2
    assert "is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["costs", "keys list", "serve --port 0"])
def test_a_home_that_is_no_folder_and_a_database_that_is_none_are_told(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".trilith").touch()
    assert main(command.split()) == 3
    assert f"{tmp_path / '.trilith'}: file exists" in capsys.readouterr().err
    (tmp_path / ".trilith").unlink()
    (tmp_path / ".trilith").mkdir()
    (tmp_path / ".trilith" / "trilith.db").write_text("this is no database", encoding="utf-8")
    assert main(command.split()) == 3
    assert "cannot be used: file is not a database" in capsys.readouterr().err
