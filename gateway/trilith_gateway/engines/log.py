"""An engine's log file: kept from growing without end, and asked for the reason when the engine dies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

LARGEST_BYTES = 10 * 1024 * 1024
"""A start finds a longer log than this: it is set aside."""
KEPT = 3
"""How many logs that were set aside are kept, as `.1` (newest) to `.3`."""
_READ_BYTES = 256 * 1024

# "(EngineCore pid=12) ERROR 11-23 09:05:26 [v1/engine/core.py:133] ..."
_PREFIX = re.compile(r"^(\(\w[\w-]* pid=\d+\) )?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
_TELLING = re.compile(r"^[\w.]*(Error|Exception)\b|\berror: |\bKilled\b")


class EngineLog:
    """The file that takes one engine's output."""

    def __init__(self, path: Path) -> None:
        """Take the path; nothing is written yet."""
        self.path = path
        self._begin = 0

    def rotate(self) -> None:
        """Set the file aside when it grew large."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists() or self.path.stat().st_size <= LARGEST_BYTES:
            return
        for age in range(KEPT, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{age}")
            newer = self.path.with_name(f"{self.path.name}.{age - 1}") if age > 1 else self.path
            if newer.exists():
                newer.replace(older)

    def open(self) -> BinaryIO:
        """Open the file for one start of the engine."""
        file = self.path.open("ab")
        self._begin = file.tell()
        return file

    def last_words(self, lines: int = 5) -> str:
        """Return what the last start said about its end: lines that name an error, else the last ones."""
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(self._begin, size - _READ_BYTES))
            text = file.read().decode(errors="replace")
        said = [line for raw in text.splitlines() if (line := _PREFIX.sub("", raw).strip())]
        telling = [line for line in said if _TELLING.search(line)]
        return (
            "\n".join(f"  {line}" for line in list(dict.fromkeys(telling or said))[-lines:]) or "  (nothing)"
        )
