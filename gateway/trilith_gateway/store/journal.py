"""The journal: every fact is on disk before anyone is answered, in one append-only file per run.

A record is one line of JSON written by one `write`. That survives the death of the process at any point
(the page cache belongs to the kernel); the database behind it catches up in batches.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""One fact: `t` names its type, `id` makes it unique within the type."""

_MAX_SEGMENT_BYTES = 16 * 1024 * 1024


class Journal:
    """Append-only segments in one folder; one process writes, replay happens before it starts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        last = max((_number(p) for p in folder.glob("*.jsonl")), default=0)
        self._open(last + 1)

    def _open(self, number: int) -> None:
        self.segment = number
        self._size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self._folder / f"{number:08d}.jsonl", flags, 0o600)

    def append(self, record: Record) -> int:
        """Write one record and return the number of the segment that it stands in.

        Raises:
            OSError: the disk refused it; the caller must not answer as if it were recorded.
        """
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._fd, line)
        if written != len(
            line
        ):  # a full disk can take half a line; end it, so that the next one stands alone
            os.write(self._fd, b"\n")
            raise OSError(f"the journal took {written} of {len(line)} bytes: is the disk full?")
        self._size += written
        segment = self.segment
        if self._size >= _MAX_SEGMENT_BYTES:
            os.close(self._fd)
            self._open(segment + 1)
        return segment

    def replay(self) -> Iterator[Record]:
        """Yield what earlier runs wrote and nobody has dropped yet, oldest first.

        A line that was cut off by a crash was never acknowledged, so it is passed over.
        """
        for path in self._earlier(self.segment):
            for line in path.read_bytes().splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record

    def drop_before(self, segment: int) -> None:
        """Delete the segments before `segment`: everything in them is in the database."""
        for path in self._earlier(segment):
            path.unlink()

    def _earlier(self, segment: int) -> list[Path]:
        return sorted(p for p in self._folder.glob("*.jsonl") if _number(p) < segment)

    def close(self) -> None:
        """Close the open segment."""
        os.close(self._fd)


def _number(path: Path) -> int:
    return int(path.stem)
