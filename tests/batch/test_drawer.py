"""What lies beside a batch: kept while it is open, swept when a kill has left it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from trilith_gateway.batch import drawer
from trilith_gateway.batch.drawer import Drawer

IDS = [f"batch_{number:032x}" for number in range(4)]


def fill(folder: Path, id: str) -> Drawer:
    made = Drawer(folder, id)
    for path in (made.input, made.results, made.lock):
        path.write_text("x", encoding="utf-8")
    return made


def test_a_sweep_takes_what_has_ended_or_was_never_made_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, held, unfinished, unmade = (fill(tmp_path, id) for id in IDS)
    other = tmp_path / "batch_notes.input"
    other.touch()
    said = {IDS[0]: True, IDS[1]: True, IDS[2]: False}
    with held.locked():
        drawer.sweep(tmp_path, said.get)
    left = [held, unfinished, unmade]
    assert not ended.input.exists()
    assert all(path.exists() for one in left for path in (one.input, one.results, one.lock))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    drawer.sweep(tmp_path, said.get)
    assert {path.stem for path in tmp_path.iterdir()} == {IDS[2], "batch_notes"}


def test_an_input_that_is_kept_outlives_its_file(tmp_path: Path) -> None:
    given = tmp_path / "file"
    given.write_bytes(b"lines")
    made = Drawer(tmp_path, IDS[0])
    made.keep(given)
    made.keep(given)
    given.unlink()
    made.keep(given)
    assert made.input.read_bytes() == b"lines"
    with pytest.raises(FileNotFoundError):
        Drawer(tmp_path, IDS[1]).keep(given)


def test_where_there_are_no_links_the_input_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    given = tmp_path / "file"
    given.write_bytes(b"lines")
    monkeypatch.setattr(os, "link", refuse)
    made = Drawer(tmp_path, IDS[0])
    made.keep(given)
    assert made.input.read_bytes() == b"lines"
    assert not list(tmp_path.glob("part-*"))
