"""`trilith ingest` as a user meets it: what it refuses, and how it leaves."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from trilith.cli import main
from trilith_rag.command import _progress


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a settings file in the current folder that declares an index of it."""
    (tmp_path / "documents").mkdir()
    settings = "home: home\nindexes: {docs: {source: documents}}\n"
    (tmp_path / "trilith.yaml").write_text(settings, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "documents"


def test_settings_without_an_index_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ingest"]) == 2
    assert "nothing under `indexes`" in capsys.readouterr().err


def test_an_index_that_is_not_declared_is_refused_with_those_that_are(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", "dox"]) == 2
    assert "'dox' is not among the indexes (docs)" in capsys.readouterr().err


def test_an_empty_folder_is_refused_with_what_was_expected(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (documents / "picture.png").touch()
    assert main(["ingest"]) == 2
    said = capsys.readouterr().err
    assert "has no document" in said
    assert ".md, .pdf, .txt" in said


def test_an_empty_folder_is_taken_by_one_who_says_so(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest", "--allow-empty"]) == 0
    assert "0 added" in capsys.readouterr().out


def test_a_broken_document_is_named_and_leaves_with_1(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (documents / "broken.pdf").write_bytes(b"%PDF-1.4 and then nothing")
    assert main(["ingest"]) == 1
    assert "could not read Failure(" not in (said := capsys.readouterr().err)
    assert "broken.pdf: it is not a readable PDF" in said


def test_progress_is_for_terminals_only_and_leaves_no_line() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        show = _progress("docs", stream)
        show(1, 2)
        show(2, 2)
    assert "docs: 1/2 passages" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert pipe.getvalue() == ""
