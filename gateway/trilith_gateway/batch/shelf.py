"""Files of teams: content in `<home>/files`, one row each in the store. Nobody but the team sees them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilith.errors import NotFoundError
from trilith_gateway import request

Connect = Callable[[], AbstractContextManager[Any]]
"""Gives a connection to the store's tables."""

UPLOADING = "uploading"
"""Purpose of a row that only takes room: its content is still coming. Callers do not see it."""
_KEPT = "kept"
"""The same for content that an open batch reads although its file was deleted."""
_SHOWN = ("batch", "batch_output")
_ID = re.compile(r"file-[0-9a-f]{24}[oe]?")
_STALE_S = 3600.0
"""After so long what was not finished is given up (seconds)."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file's row."""

    id: str
    team: str
    key_id: str
    purpose: str
    """`batch` for what callers upload, `batch_output` for what batches write."""
    name: str
    bytes: int
    at: float
    expires_at: float
    place: str
    """The home that has the content."""

    def shown(self) -> dict[str, object]:
        """Return OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": int(self.at),
            "expires_at": int(self.expires_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Shelf:
    """One home's files. Its methods block."""

    def __init__(self, folder: Path, place: str, connect: Connect) -> None:
        """Take the folder of contents, the home's name, and the way to the tables."""
        self.folder = folder
        self.place = place
        self._connect = connect
        self._reserving = threading.Lock()

    def path(self, id: str) -> Path:
        """Return where a file's content is."""
        if not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is no file's id")
        return self.folder / id

    def part_path(self, id: str) -> Path:
        """Return where a file's content is while it is written."""
        return self.folder / f"part-{self.path(id).name}"

    def upload_path(self, id: str) -> Path:
        """Return where a file's form is while it comes."""
        return self.folder / f"upload-{self.path(id).name}"

    def reserve(self, row: StoredFile, team_bytes: int) -> bool:
        """Take room for a file that is still coming, or more of it; false when the team has none left.

        Of two who want the last room at once in different processes both may hear no, but never both yes:
        what is taken is seen by all before it is counted.
        """
        now = time.time()
        with self._reserving, self._connect() as connection:
            connection.execute(
                "insert into files (id, team, key_id, purpose, name, bytes, at, expires_at, place)"
                " values (?, ?, ?, ?, '', ?, ?, ?, ?)"
                " on conflict (id) do update set bytes = excluded.bytes, expires_at = excluded.expires_at",
                (row.id, row.team, row.key_id, UPLOADING, row.bytes, now, now + _STALE_S, row.place),
            )
            (total,) = connection.execute(
                "select sum(bytes) from files where team = ? and expires_at > ?", (row.team, now)
            ).fetchone()
            if int(total or 0) <= team_bytes:
                return True
            connection.execute("delete from files where id = ? and purpose = ?", (row.id, UPLOADING))
            return False

    def put(self, made: StoredFile) -> None:
        """Make a file of a row that took room for it; its content is there."""
        with self._connect() as connection:
            changed = connection.execute(
                "update files set purpose = ?, name = ?, bytes = ?, at = ?, expires_at = ? where id = ?",
                (made.purpose, made.name, made.bytes, made.at, made.expires_at, made.id),
            )
        if not changed.rowcount:  # its time was over before its last byte came
            self.add(made)

    def abandon(self, id: str) -> None:
        """Remove a form and, where no file was made of it, all else that it left."""
        with self._connect() as connection:
            row = connection.execute("select purpose from files where id = ?", (id,)).fetchone()
            if row is None or row["purpose"] == UPLOADING:
                self.path(id).unlink(missing_ok=True)
                self.part_path(id).unlink(missing_ok=True)
                connection.execute("delete from files where id = ? and purpose = ?", (id, UPLOADING))
        self.upload_path(id).unlink(missing_ok=True)

    def add(self, made: StoredFile) -> None:
        """Write a file's row; one that is there already changes nothing."""
        marks = ", ".join("?" * len(StoredFile.__slots__))
        columns = ", ".join(StoredFile.__slots__)
        values = tuple(getattr(made, name) for name in StoredFile.__slots__)
        with self._connect() as connection:
            connection.execute(
                f"insert into files ({columns}) values ({marks}) on conflict do nothing", values
            )

    def find(self, id: str, team: str) -> StoredFile:
        """Return a team's file.

        Raises:
            NotFoundError: the team has none of this id.
        """
        row = None
        if _ID.fullmatch(id):
            with self._connect() as connection:
                row = connection.execute(
                    "select * from files where id = ? and team = ? and expires_at > ? and purpose in (?, ?)",
                    (id, team, time.time(), *_SHOWN),
                ).fetchone()
        if row is None:
            raise NotFoundError(
                f"This team has no file {id[:80]!r}. GET /v1/files lists its files.",
                status_code=404,
                code="file_not_found",
                param="file_id",
                type="invalid_request_error",
            )
        return _file(row)

    def listed(
        self, team: str, *, limit: int, after: str | None, oldest_first: bool, purpose: str | None
    ) -> list[StoredFile]:
        """Return a page of a team's files, newest first or oldest first, and one more if there are more.

        Raises:
            BadRequestError: the team has no file of the id `after`.
        """
        purposes = _SHOWN if purpose is None else (purpose, purpose)
        if not set(purposes) <= set(_SHOWN):
            return []
        given = (team, time.time(), *purposes)
        at, id = (-1.0, "") if oldest_first else (float("inf"), "")
        if after is not None:
            found = request.page_end(lambda id: self.find(id, team), after)
            at, id = found.at, found.id
        with self._connect() as connection:
            if oldest_first:
                rows = connection.execute(
                    "select * from files where team = ? and expires_at > ? and purpose in (?, ?)"
                    " and (at, id) > (?, ?) order by at, id limit ?",
                    (*given, at, id, limit + 1),
                )
            else:
                rows = connection.execute(
                    "select * from files where team = ? and expires_at > ? and purpose in (?, ?)"
                    " and (at, id) < (?, ?) order by at desc, id desc limit ?",
                    (*given, at, id, limit + 1),
                )
            return [_file(row) for row in rows.fetchall()]

    def delete(self, file: StoredFile) -> None:
        """Delete a file and its content; as long as an open batch reads it, its room stays taken."""
        self.path(file.id).unlink(missing_ok=True)
        with self._connect() as connection:
            kept = connection.execute(
                "update files set purpose = ?, expires_at = (select max(expires_at) from batches"
                " where input_file_id = files.id and ended_at is null) + ? where id = ? and exists"
                " (select 1 from batches where input_file_id = files.id and ended_at is null)",
                (_KEPT, _STALE_S, file.id),
            )
            if not kept.rowcount:
                connection.execute("delete from files where id = ?", (file.id,))

    def release(self, id: str) -> None:
        """Give back the room of a file that was deleted, if no open batch reads it any more."""
        with self._connect() as connection:
            connection.execute(
                "delete from files where id = ? and purpose = ? and not exists"
                " (select 1 from batches where input_file_id = files.id and ended_at is null)",
                (id, _KEPT),
            )

    def expire(self) -> None:
        """Delete what has passed its time, and what is left of uploads whose process is gone."""
        now = time.time()
        with self._connect() as connection:
            rows = connection.execute(
                "select * from files where place = ? and expires_at <= ?", (self.place, now)
            ).fetchall()
        for row in rows:
            self.delete(_file(row))
        for path in self.folder.glob("upload-*"):
            self._sweep(path)
        for path in self.folder.glob("part-*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _STALE_S:
                    path.unlink()

    def _sweep(self, path: Path) -> None:
        """Remove an upload that nobody holds."""
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                id = path.name.removeprefix("upload-")
                if _ID.fullmatch(id):
                    self.abandon(id)
                else:
                    path.unlink(missing_ok=True)
        except (FileNotFoundError, BlockingIOError):  # gone, or still coming
            return


def new_id() -> str:
    """Return an id for a file."""
    return f"file-{secrets.token_hex(12)}"


def settle(part: Path, path: Path) -> None:
    """Give a file that was just written its name; it is whole under it, also after the power went."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _file(row: Any) -> StoredFile:
    return StoredFile(*(row[name] for name in StoredFile.__slots__))
