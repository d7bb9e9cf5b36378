"""Uploads: room is taken before bytes are, and whatever ends one leaves all of a file or nothing."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from store.conftest import opened, postgres_url, server, url

from trilith.errors import APIStatusError, BadRequestError
from trilith_gateway import key
from trilith_gateway.batch.shelf import Shelf, StoredFile
from trilith_gateway.batch.table import Batches
from trilith_gateway.batch.table import new_id as new_batch
from trilith_gateway.batch.upload import FORM_BYTES, Bounds, Form, Upload

__all__ = ["opened", "postgres_url", "server", "url"]

KEY = key.mint("test", team="lab")[0]
TYPE = "multipart/form-data; boundary=mark"
BOUNDS = Bounds(file_bytes=10**6, team_bytes=1000, keep_s=86_400)
PLACE = "here"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Dying(Shelf):
    """A shelf whose process is killed at a step: nothing after it happens, and locks are gone."""

    dies_at = ""

    def put(self, made: StoredFile) -> None:
        if self.dies_at == "before the row":
            raise SystemExit
        super().put(made)
        if self.dies_at == "after the row":
            raise SystemExit


@pytest.fixture
def shelf(home: Path, opened: Any) -> Dying:
    return Dying(home / "files", PLACE, opened().reading)


@pytest.fixture
def begin(shelf: Dying) -> Iterator[Callable[..., Upload]]:
    """Begin uploads; those that a test leaves open are closed at the end."""
    made: list[Upload] = []

    def begun(declared: int = 0, shelf: Shelf = shelf) -> Upload:
        upload = Upload(shelf, KEY, BOUNDS)
        made.append(upload)
        upload.begin(declared)
        return upload

    yield begun
    for upload in made:
        upload.close()


def form(data: bytes, *, name: str = "a.jsonl", **fields: str) -> bytes:
    given = {"purpose": "batch", **fields}
    parts = [
        b'--mark\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (n.encode(), v.encode())
        for n, v in given.items()
    ]
    head = b'--mark\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name.encode()
    return b"".join(parts) + head + data + b"\r\n--mark--\r\n"


def put(upload: Upload, data: bytes, **fields: str) -> StoredFile:
    upload.write(form(data, **fields))
    made = upload.finish(TYPE)
    upload.close()
    return made


def rows(shelf: Shelf) -> list[Any]:
    with shelf._connect() as connection:
        return [dict(row) for row in connection.execute("select * from files").fetchall()]


def kill(upload: Upload) -> None:
    """Let go of an upload as a kill does: the lock is gone, and nothing is tidied."""
    assert upload._file is not None
    upload._file.close()
    upload._file = None


def page(shelf: Shelf, **options: Any) -> list[str]:
    given = {"limit": 10, "after": None, "oldest_first": False, "purpose": None} | options
    return [file.id for file in shelf.listed("lab", **given)]


def test_what_was_uploaded_is_there_and_nothing_beside_it(shelf: Dying, begin: Any) -> None:
    made = put(begin(), b"x" * 1000)
    assert shelf.path(made.id).read_bytes() == b"x" * 1000
    assert [path.name for path in shelf.folder.iterdir()] == [made.id]
    assert shelf.find(made.id, "lab") == made


def test_of_many_uploads_at_once_only_those_are_taken_that_fit(shelf: Dying, begin: Any) -> None:
    def attempt(_: int) -> str | None:
        try:
            put(begin(600 + FORM_BYTES), b"x" * 600)
        except APIStatusError as error:
            return error.code
        return None

    with ThreadPoolExecutor(8) as threads:
        assert sorted(map(str, threads.map(attempt, range(8)))) == ["None"] + ["team_storage_full"] * 7
    put(begin(), b"x" * 400)


def test_two_processes_never_take_more_than_there_is(home: Path, opened: Any, begin: Any) -> None:
    shelves = [Shelf(home / "files", PLACE, opened(name).reading) for name in "12"]

    def attempt(number: int) -> int:
        try:
            return put(begin(shelf=shelves[number % 2]), b"x" * 90).bytes
        except APIStatusError:
            return 0

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(attempt, range(40)))
    assert taken == sum(row["bytes"] for row in rows(shelves[0])) <= 1000


def test_an_upload_that_is_declared_too_long_is_refused_before_a_byte_of_it_comes(
    shelf: Dying, begin: Any
) -> None:
    for declared, code in (
        (FORM_BYTES + 10**6 + 1, "file_too_large"),
        (FORM_BYTES + 1001, "team_storage_full"),
    ):
        with pytest.raises(APIStatusError) as caught:
            begin(declared)
        assert caught.value.code == code


def test_one_that_does_not_say_how_long_it_is_is_refused_when_it_becomes_too_long(
    shelf: Dying, begin: Any
) -> None:
    upload = begin()
    upload.write(b"x" * FORM_BYTES)
    with pytest.raises(APIStatusError, match=r"1,000 bytes.*batches\.team_bytes"):
        upload.write(b"x" * 1001)
    upload.close()
    assert list(shelf.folder.iterdir()) == rows(shelf) == []


def test_what_is_refused_leaves_nothing_and_gives_its_room_back(shelf: Dying, begin: Any) -> None:
    for fields in (
        {"purpose": "fine-tune"},
        {"expires_after[anchor]": "created_at"},
        {"expires_after[seconds]": "9999"},
    ):
        with pytest.raises(BadRequestError):
            put(upload := begin(), b"x" * 900, **fields)
        upload.close()
    assert list(shelf.folder.iterdir()) == rows(shelf) == []
    put(begin(), b"x" * 1000)


def test_a_full_disk_is_told_as_what_it_is_and_leaves_nothing(shelf: Dying, begin: Any) -> None:
    upload = begin()
    with Path("/dev/full").open("wb") as full:  # takes no byte, as a disk that is full
        os.dup2(full.fileno(), upload._file.fileno())
    with pytest.raises(APIStatusError) as caught:
        put(upload, b"x")
    assert (caught.value.status_code, caught.value.code) == (507, "disk_full")
    upload.close()
    assert list(shelf.folder.iterdir()) == rows(shelf) == []


def test_uploads_that_are_still_coming_are_seen_by_nobody_and_swept_by_nobody(
    shelf: Dying, begin: Any
) -> None:
    upload = begin(FORM_BYTES + 500)
    upload.write(form(b"abc"))
    shelf.expire()
    assert len(rows(shelf)) == 1
    assert page(shelf) == page(shelf, purpose="uploading") == []
    made = upload.finish(TYPE)
    shelf.expire()
    assert page(shelf) == [made.id]


@pytest.mark.parametrize("step", ["before the form is whole", "before the row", "after the row"])
def test_after_a_kill_there_is_a_whole_file_or_nothing(shelf: Dying, begin: Any, step: str) -> None:
    shelf.dies_at = step
    upload = begin(FORM_BYTES + 900)
    upload.write(form(b"abc"))
    if step != "before the form is whole":
        with pytest.raises(SystemExit):
            upload.finish(TYPE)
    kill(upload)
    shelf.expire()
    assert (
        len(rows(shelf)) == len(list(shelf.folder.iterdir())) == len(page(shelf)) == (step == "after the row")
    )
    assert all(shelf.path(id).read_bytes() == b"abc" for id in page(shelf))


def test_pages_go_through_all_files_in_either_order(shelf: Dying, begin: Any) -> None:
    made = [put(begin(), b"x").id for _ in range(5)]
    for oldest_first, whole in ((True, made), (False, made[::-1])):
        assert page(shelf, oldest_first=oldest_first) == whole
        for at, id in enumerate(whole):
            assert page(shelf, oldest_first=oldest_first, after=id, limit=1) == whole[at + 1 : at + 3]
    for nobodys in ("file-" + "0" * 24, "\0", "a"):
        with pytest.raises(BadRequestError):
            page(shelf, after=nobodys)
    assert page(shelf, purpose="\0") == page(shelf, purpose="batch_output") == []


def test_names_hold_no_signs_that_a_database_or_a_terminal_would_trip_over(begin: Any) -> None:
    assert put(begin(), b"x", name="a\0\x1b[31m\u202eb" + "c" * 300).name == ("a[31mb" + "c" * 300)[:255]


def test_the_room_of_a_deleted_file_stays_taken_while_an_open_batch_reads_it(
    shelf: Dying, begin: Any, opened: Any
) -> None:
    table = Batches(PLACE, shelf._connect)
    made = put(begin(), b"x" * 600)
    ids = [new_batch() for _ in range(2)]
    for id in ids:
        table.create(id, KEY, made.id, "/v1/chat/completions", None)
    shelf.delete(made)
    assert page(shelf) == []
    for id in ids:
        with pytest.raises(APIStatusError):
            put(begin(), b"x" * 600)
        table.end(id, "completed")
        shelf.release(made.id)
    put(begin(), b"x" * 600)


def test_a_form_is_searched_in_slices_as_if_it_were_whole(tmp_path: Path) -> None:
    mark, at = b"\r\n--mark", Form.SLICE_BYTES
    for place in (0, 5, at - 9, at - 4, at - 1, at, at + 3, 2 * at - 2):
        data = bytearray(2 * at + 100)
        data[place : place + len(mark)] = mark
        (tmp_path / "form").write_bytes(data)
        with (tmp_path / "form").open("rb") as file, Form(file.fileno(), 0, access=mmap.ACCESS_READ) as form:
            for start in (0, place, place + 1, at):
                for stop in (None, place + len(mark), place + len(mark) - 1):
                    expected = data.find(mark, start, *(() if stop is None else (stop,)))
                    assert form.find(mark, start, *(() if stop is None else (stop,))) == expected
