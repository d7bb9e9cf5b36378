"""The journal: every fact is on disk before anyone is answered, in one append-only file per run.

A record is one line of JSON written by one `write`. That survives the death of the process at any point
(the page cache belongs to the kernel); the database behind it catches up in batches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

Record = dict[str, Any]
"""One fact: `t` names its type, `id` makes it unique within the type."""

_log = logging.getLogger(__name__)

_MAX_SEGMENT_BYTES = 16 * 1024 * 1024


class Journal:
    """Append-only segments in one folder; one process writes, replay happens before it starts."""

    def __init__(self, folder: Path, *, sync: bool = False) -> None:
        """Begin a new segment; with `sync`, every `append` waits until the disk itself has it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._sync = sync
        self._folder = folder
        self._held: dict[str, Record] = {}
        self._refused = False
        self._torn = False
        """A part of a line stands at the end."""
        self._lock = threading.Lock()
        last = max(map(_number, segments(folder)), default=0)
        self._open(last + 1)

    def _open(self, number: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._folder / f"{number:08d}.jsonl", flags, 0o600)
        self.segment = number
        self._size = 0
        self._torn = False
        if self._sync:  # the file's name must be on the disk as well
            folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _turn(self) -> None:
        """Begin the next segment; while that cannot be, the present one goes on."""
        full = self._fd
        with contextlib.suppress(OSError):
            self._open(self.segment + 1)
        if self._fd != full:
            os.close(full)

    def hold(self, record: Record) -> None:
        """Take a record that may wait for `write_held`, and need not be written if one of its id is sooner.

        Raises:
            OSError: the disk refused what came last.
        """
        if self._refused:
            raise OSError("the journal's last write was refused: is the disk full?")
        self._held[record["id"]] = record

    def write_held(self) -> list[tuple[int, Record]]:
        """Write what is held; returns it with its segment's number. Safe beside `append` in another thread.

        Raises:
            OSError: the disk refused it; it is still held.
        """
        with self._lock:
            taken = [record for id in list(self._held) if (record := self._held.pop(id, None)) is not None]
            held = [record for record in taken if _fits(record)]
            if held or self._refused:  # an empty line asks again
                try:
                    self._write(b"".join(map(_line, held)) or b"\n")
                except OSError:
                    self._held.update((record["id"], record) for record in held)
                    raise
            return [(self.segment, record) for record in held]

    def append(self, record: Record) -> int:
        """Write one record, in place of one that is held under its id; returns the number of its segment.

        Raises:
            OSError: the disk refused it; the caller must not answer as if it were recorded.
        """
        self._held.pop(record["id"], None)
        line = _line(record)
        with self._lock:
            segment = self.segment
            self._write(line)
            if self._size >= _MAX_SEGMENT_BYTES:
                self._turn()
        return segment

    def _write(self, lines: bytes) -> None:
        """Add whole lines, or nothing."""
        if self._torn:  # what is added shall stand alone
            lines = b"\n" + lines
        try:
            written = os.write(self._fd, lines)
            if written != len(lines):  # a full disk can take half a line
                raise OSError(f"the journal took {written} of {len(lines)} bytes: is the disk full?")
            if self._sync:
                os.fdatasync(self._fd)
        except OSError:
            self._refused = True
            try:
                os.ftruncate(self._fd, self._size)  # what was refused must not be found later
            except OSError:
                self._torn = True
            raise
        self._size = os.fstat(self._fd).st_size if self._torn else self._size + written
        self._refused = self._torn = False

    def replay(self) -> Iterator[Record]:
        """Yield what earlier runs wrote and nobody has dropped yet, oldest first.

        A line that was cut off by a crash was never acknowledged, so it is passed over.
        """
        yield from read(self._earlier(self.segment))

    def drop_before(self, segment: int) -> None:
        """Delete the segments before `segment`: everything in them is in the database."""
        for path in self._earlier(segment):
            path.unlink()

    def _earlier(self, segment: int) -> list[Path]:
        return [path for path in segments(self._folder) if _number(path) < segment]

    def close(self) -> None:
        """Write what is held and close the open segment."""
        with contextlib.suppress(OSError):
            self.write_held()
        os.close(self._fd)


def segments(folder: Path) -> list[Path]:
    """Return a journal's files, oldest first."""
    return sorted(path for path in folder.glob("*.jsonl") if path.stem.isdecimal())


def read(paths: Iterable[Path]) -> Iterator[Record]:
    """Yield the facts in some segments; a line that is not whole was never acknowledged, and is told of."""
    for path in paths:
        torn = 0
        for line in path.read_bytes().split(b"\n"):
            record = _record(line)
            if record is not None:
                yield record
            elif line:
                torn += 1
        if torn:
            lines = "1 line that is" if torn == 1 else f"{torn:,} lines that are"
            _log.warning("the journal %s holds %s not whole; nobody was told that they stand", path, lines)


def _record(line: bytes) -> Record | None:
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _line(record: Record) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _fits(record: Record) -> bool:
    """Say whether a record can be written at all; one that cannot must not keep the others."""
    try:
        _line(record)
    except TypeError as error:
        _log.error("a record of the type %s is left out of the journal: %s", record.get("t"), error)
        return False
    return True


def _number(path: Path) -> int:
    return int(path.stem)
