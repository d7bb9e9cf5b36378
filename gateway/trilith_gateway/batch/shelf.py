"""Files of teams: content in `<home>/files`, one row each in the store. Nobody but the team sees them."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from trilith.errors import APIStatusError, NotFoundError
from trilith_gateway import multipart, request
from trilith_gateway.key import Key

Connect = Callable[[], AbstractContextManager[Any]]
"""Gives a connection to the store's tables."""

_ID = re.compile(r"file-[0-9a-f]{24}[oe]?")
_COPY_BYTES = 1024 * 1024
_MOST_NAME = 255
_STALE_S = 3600.0
"""After so long an upload that was not finished is given up (seconds)."""
_ANCHOR = "created_at"


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

    @contextlib.contextmanager
    def upload(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """Open a place for a body that is still coming; it is gone when the block ends."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"upload-{secrets.token_hex(12)}"
        try:
            with path.open("wb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def take(
        self, body: Path, content_type: str, key: Key, *, most_bytes: int, team_bytes: int, keep_s: float
    ) -> StoredFile:
        """Make a file of an uploaded form.

        Raises:
            BadRequestError: the form is not one of a file and its purpose.
            APIStatusError: 413, the file is too large, or the team has no room left.
        """
        if not body.stat().st_size:
            request.refuse("The body is empty, expected a form with `file` and `purpose`.", None)
        with body.open("rb") as source, mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            fields: dict[str, str] = {}
            found: multipart.Part | None = None
            for part in multipart.parts(raw, content_type):
                if part.name == "file" and part.filename is not None:
                    found = part
                elif part.filename is None:
                    fields[part.name] = multipart.text(raw, part)
            if found is None:
                request.refuse("`file` is missing, expected a file.", "file")
            if fields.get("purpose") != "batch":
                request.refuse(f"`purpose` is {fields.get('purpose')!r}, expected 'batch'.", "purpose")
            size = found.end - found.start
            self._room(key.team, size, most_bytes, team_bytes)
            now = time.time()
            name = (found.filename or "file")[:_MOST_NAME]
            until = now + _kept_s(fields, keep_s)
            made = StoredFile(new_id(), key.team, key.id, "batch", name, size, now, until, self.place)
            with self.path(made.id).open("xb") as target:
                for at in range(found.start, found.end, _COPY_BYTES):
                    target.write(raw[at : min(at + _COPY_BYTES, found.end)])
        self.add(made)
        return made

    def _room(self, team: str, size: int, most_bytes: int, team_bytes: int) -> None:
        if size > most_bytes:
            raise _too_large(
                f"The file is longer than {most_bytes:,} bytes (setting batches.max_file_bytes)."
            )
        with self._connect() as connection:
            row = connection.execute("select sum(bytes) from files where team = ?", (team,)).fetchone()
        if int(row[0] or 0) + size > team_bytes:
            raise _too_large(
                f"The team's files would come to more than {team_bytes:,} bytes (setting "
                "batches.team_bytes). Delete some first."
            )

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
        with self._connect() as connection:
            row = connection.execute(
                "select * from files where id = ? and team = ? and expires_at > ?", (id, team, time.time())
            ).fetchone()
        if row is None or not _ID.fullmatch(id):
            raise NotFoundError(
                f"This team has no file {id[:80]!r}. GET /v1/files lists its files.",
                status_code=404,
                code="file_not_found",
                param="file_id",
                type="invalid_request_error",
            )
        return _file(row)

    def listed(self, team: str) -> list[StoredFile]:
        """Return a team's files, newest first."""
        with self._connect() as connection:
            rows = connection.execute(
                "select * from files where team = ? and expires_at > ? order by at desc, id desc",
                (team, time.time()),
            ).fetchall()
        return [_file(row) for row in rows]

    def path(self, id: str) -> Path:
        """Return where a file's content is."""
        if not _ID.fullmatch(id):
            raise ValueError(f"{id!r} is no file's id")
        return self.folder / id

    def delete(self, file: StoredFile) -> None:
        """Delete a file and its content."""
        with self._connect() as connection:
            connection.execute("delete from files where id = ?", (file.id,))
        self.path(file.id).unlink(missing_ok=True)

    def expire(self) -> None:
        """Delete what has passed its time, and what is left of uploads that were not finished."""
        now = time.time()
        with self._connect() as connection:
            rows = connection.execute(
                "select * from files where place = ? and expires_at <= ?", (self.place, now)
            ).fetchall()
        for row in rows:
            self.delete(_file(row))
        for path in self.folder.glob("upload-*"):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _STALE_S:
                    path.unlink()


def new_id() -> str:
    """Return an id for a file."""
    return f"file-{secrets.token_hex(12)}"


def written(path: Path) -> int:
    """Make a file that was just written last, and return its length (bytes)."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _kept_s(fields: dict[str, str], most_s: float) -> float:
    """Return how long a file is kept: as its owner says, up to the setting."""
    seconds = fields.get("expires_after[seconds]")
    if seconds is None:
        return most_s
    if fields.get("expires_after[anchor]") != _ANCHOR or not seconds.isdecimal() or len(seconds) > 9:
        request.refuse(
            "`expires_after` is expected to hold the anchor 'created_at' and whole seconds.", "expires_after"
        )
    return min(float(seconds), most_s)


def _file(row: Any) -> StoredFile:
    return StoredFile(*(row[name] for name in StoredFile.__slots__))


def _too_large(message: str) -> APIStatusError:
    return APIStatusError(
        message, status_code=413, code="file_too_large", param="file", type="invalid_request_error"
    )
