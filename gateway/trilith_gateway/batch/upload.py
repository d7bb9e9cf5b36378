"""Uploads: a form that is still coming, with room among its team's files taken before it is on the disk.

While a form comes, it lies in `upload-ID`, which its process holds locked, and its row says `uploading`;
whoever finds such a file unlocked may take all of it away. The row is the last thing to change: from then on
there is a file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from trilith.errors import APIStatusError, InternalServerError
from trilith_gateway import multipart, request
from trilith_gateway.batch.shelf import UPLOADING, Shelf, StoredFile, new_id, settle
from trilith_gateway.key import Key

FORM_BYTES = 64 * 1024
"""What a form may hold beside its file."""
_COPY_BYTES = 1024 * 1024
_MOST_NAME = 255
_ANCHOR = "created_at"
_LEAST_KEPT_S, _MOST_KEPT_S = 3600, 2_592_000
"""Between these a file's owner may say how long it is kept (seconds), as at OpenAI."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the settings allow."""

    file_bytes: int
    team_bytes: int
    """All files of a team together."""
    keep_s: float


class Upload:
    """One upload, until it is closed. Its methods block."""

    def __init__(self, shelf: Shelf, key: Key, bounds: Bounds) -> None:
        """Take the shelf, and whose file it will be; nothing is written yet."""
        self._shelf = shelf
        self._bounds = bounds
        now = time.time()
        self._row = StoredFile(
            new_id(), key.team, key.id, UPLOADING, "", 0, now, now + bounds.keep_s, shelf.place
        )
        self._path = shelf.upload_path(self._row.id)
        self._file: IO[bytes] | None = None
        self._size = 0
        self._lock = threading.Lock()
        """A caller that leaves ends the upload while a thread may still be at work for it."""
        self._closed = False

    def begin(self, declared: int) -> None:
        """Take room for a body.

        Args:
            declared: How long it is going to be (bytes), as its caller says; 0 when it does not.

        Raises:
            APIStatusError: 413, it is too long, or the team has no room left.
        """
        self._check(declared - FORM_BYTES)
        self._shelf.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock:
            while not self._closed and self._file is None:
                file = self._path.open("xb")
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._path.exists():
                    self._file = file
                else:  # swept away between the two
                    file.close()
            self._begun()
            self._take(max(0, declared - FORM_BYTES))

    def write(self, data: bytes) -> None:
        """Write a part of the body; where more comes than was declared, more room is taken first.

        Raises:
            APIStatusError: as `begin`; or 507, the disk is full.
        """
        with self._lock, _room_on_disk():
            file = self._begun()
            self._size += len(data)
            self._check(self._size - FORM_BYTES)
            if self._size - FORM_BYTES > self._row.bytes:
                self._take(self._size - FORM_BYTES)
            file.write(data)

    def finish(self, content_type: str) -> StoredFile:
        """Make a file of the form that has come; on return it is on the disk.

        Raises:
            BadRequestError: the form is not one of a file and its purpose.
            APIStatusError: 413, the file is too large, or the team has no room left; 507, the disk is full.
        """
        with self._lock, _room_on_disk():
            self._begun().flush()
            if not self._size:
                request.refuse("The body is empty, expected a form with `file` and `purpose`.", None)
            with self._path.open("rb") as file, Form(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
                return self._keep(raw, *_form(raw, content_type))

    def _keep(self, raw: mmap.mmap, found: multipart.Part, fields: dict[str, str]) -> StoredFile:
        now = time.time()
        made = replace(
            self._row,
            purpose="batch",
            name=_name(found.filename),
            bytes=found.end - found.start,
            at=now,
            expires_at=now + kept_s(fields, self._bounds.keep_s),
        )
        self._check(made.bytes)
        self._take(made.bytes)
        part = self._shelf.part_path(made.id)
        with part.open("wb") as target:
            for at in range(found.start, found.end, _COPY_BYTES):
                target.write(raw[at : min(at + _COPY_BYTES, found.end)])
        settle(part, self._shelf.path(made.id))
        self._shelf.put(made)
        return made

    def close(self) -> None:
        """Remove what came, and where no file was made of it, give its room back."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._shelf.abandon(self._row.id)
                with contextlib.suppress(OSError):  # what it could not write is not wanted any more
                    self._file.close()
                self._file = None

    def _begun(self) -> IO[bytes]:
        if self._file is None:
            raise RuntimeError("the upload has not begun, or is over")
        return self._file

    def _check(self, size: int) -> None:
        if size > self._bounds.file_bytes:
            raise _too_large(
                f"The file is longer than {self._bounds.file_bytes:,} bytes "
                "(setting batches.max_file_bytes). Split it.",
                "file_too_large",
            )

    def _take(self, size: int) -> None:
        self._row = replace(self._row, bytes=size)
        if not self._shelf.reserve(self._row, self._bounds.team_bytes):
            raise _too_large(
                f"The team's files would come to more than {self._bounds.team_bytes:,} bytes "
                "(setting batches.team_bytes). Delete some first.",
                "team_storage_full",
            )


class Form(mmap.mmap):
    """A form on the disk, which is searched a slice at a time.

    A search holds the interpreter to its end, half a second for a hundred megabytes; others wait for it.
    """

    SLICE_BYTES = 256 * 1024

    def find(self, sub: Any, start: int = 0, stop: int | None = None) -> int:
        """Return where `sub` begins in `[start, stop)`, or -1."""
        end = len(self) if stop is None else min(stop, len(self))
        for at in range(start, end, self.SLICE_BYTES):
            found = super().find(sub, at, min(end, at + self.SLICE_BYTES + len(sub) - 1))
            if found >= 0:
                return found
            time.sleep(0)
        return -1


def _form(raw: mmap.mmap, content_type: str) -> tuple[multipart.Part, dict[str, str]]:
    """Return the file's place, and the form's other fields."""
    fields: dict[str, str] = {}
    found: multipart.Part | None = None
    for part in multipart.parts(raw, content_type):
        if part.name == "file" and part.filename is not None:
            found = part
        elif part.filename is None:
            fields[part.name] = multipart.text(raw, part)
    if found is None:
        request.refuse("`file` is missing, expected a file.", "file")
    if (purpose := fields.get("purpose")) != "batch":
        shown = "missing" if purpose is None else repr(purpose[:80])
        request.refuse(f"`purpose` is {shown}, expected 'batch'.", "purpose")
    return found, fields


def _name(given: str | None) -> str:
    """Return a file's name as it may be shown and stored: without signs that mean something to machines."""
    name = "".join(sign for sign in given or "" if sign.isprintable())
    return name[:_MOST_NAME] or "file"


def kept_s(fields: dict[str, str], most_s: float) -> float:
    """Return how long a file is kept: as its owner says, up to the setting."""
    seconds, anchor = fields.get("expires_after[seconds]"), fields.get("expires_after[anchor]")
    if seconds is None and anchor is None:
        return most_s
    if anchor != _ANCHOR:
        request.refuse(f"`expires_after` has no anchor {_ANCHOR!r}, the only one.", "expires_after")
    whole = int(seconds) if seconds is not None and seconds.isdecimal() and len(seconds) < 10 else 0
    if not _LEAST_KEPT_S <= whole <= _MOST_KEPT_S:
        request.refuse(
            f"`expires_after` is expected to hold {_LEAST_KEPT_S} to {_MOST_KEPT_S} `seconds`.",
            "expires_after",
        )
    return min(float(whole), most_s)


@contextlib.contextmanager
def _room_on_disk() -> Iterator[None]:
    """Tell of a disk that is full as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InternalServerError(
            "The gateway's disk has no room left for this file. Its operator has to make some.",
            status_code=507,
            code="disk_full",
            type="server_error",
        ) from error


def _too_large(message: str, code: str) -> APIStatusError:
    return APIStatusError(message, status_code=413, code=code, param="file", type="invalid_request_error")
