"""Finds a person's rows in a dataset again without keeping who they are: keyed hashes of what was masked.

Without the key nobody can tell from the hashes whether a name is among them; with it, a row is found by the
value that a person gives when they ask to be forgotten.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trilith.errors import DataError
from trilith_evals import atomic, table

COLUMN = "subjects"
"""The column of the hashes."""

_KEY_BYTES = 32


def open_key(path: Path, *, make: bool = False) -> bytes:
    """Read the key; with `make`, one that is not there is made, for its owner's eyes only.

    Raises:
        DataError: it cannot be read or made, or is none.
    """
    try:
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # another process was faster; its key counts
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_hex(_KEY_BYTES) + "\n")
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: cannot read the erasure key: {said}") from error
    except ValueError as error:
        raise DataError(
            f"{path}: not an erasure key, expected {_KEY_BYTES * 2} hexadecimal digits"
        ) from error
    if len(key) != _KEY_BYTES:
        raise DataError(f"{path}: found {len(key)} bytes, expected an erasure key of {_KEY_BYTES}")
    return key


def hashed(key: bytes, value: str) -> str:
    """Return what stands for a value: the same whatever its case and the white space in it."""
    normal = " ".join(value.split()).casefold()
    return hmac.new(key, normal.encode(), hashlib.sha256).hexdigest()[:32]


def erase(path: Path, key: bytes, values: Iterable[str]) -> int:
    """Take the rows that hold one of the values out of a JSONL dataset; returns how many.

    Raises:
        DataError: the file is not JSONL or cannot be read or written; it is then as it was.
    """
    if path.suffix.lower() != ".jsonl":
        raise DataError(f"{path}: rows are erased from .jsonl files only")
    wanted = {hashed(key, value) for value in values}
    kept, gone = [], 0
    for record in table.records(path):
        if record.problem:
            raise DataError(f"{path}:{record.line}: {record.problem}")
        subjects = record.row.get(COLUMN)
        if not isinstance(subjects, list):
            raise DataError(
                f"{path}:{record.line}: no list {COLUMN!r}, as from-traces writes it with an erasure key"
            )
        if wanted & set(map(str, subjects)):
            gone += 1
        else:
            kept.append(json.dumps(record.row, ensure_ascii=False) + "\n")
    if gone:
        replace(path, "".join(kept))
    return gone


def replace(path: Path, text: str) -> None:
    """Write a file so that it is whole, or what it was.

    Raises:
        DataError: it cannot be written.
    """
    try:
        atomic.write(path, text)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from error
