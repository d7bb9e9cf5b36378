"""Files that are whole or not there: written beside their place and moved to it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file, and its folder where that is missing; readers meet the old one or the new one.

    Args:
        path: Where.
        content: Text becomes UTF-8, and lone surrogates, with which models may answer, question marks.
        durable: Wait until it is on the disk, so that it also survives a loss of power.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("wb") as file:
            file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
