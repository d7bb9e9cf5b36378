"""Reads the rows of a dataset's file one after another: JSONL, CSV or Parquet, the first two also as gzip.

Holds one line, or one batch of a Parquet file, at a time. A row that is wrong comes out with what is wrong
with it, so that a reader hears of all of them; only a file that cannot be read on raises.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from trilith.errors import DataError
from trilith.extras import need
from trilith.types import Json

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one line; longer ones are taken for a file without line ends."""

_BATCH_ROWS = 1024
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file."""

    line: int
    """From 1; for Parquet the row's number."""
    row: dict[str, Json] = field(default_factory=dict)
    problem: str = ""
    """What is wrong with the row; empty when nothing is."""


def kind(path: Path) -> str:
    """Return what a file's name says that it is: `.jsonl`, `.csv` or `.parquet`.

    Raises:
        DataError: it is none of these.
    """
    endings = [ending.lower() for ending in path.suffixes]
    if endings and endings[-1] == ".gz" and endings[-2:-1] != [".parquet"]:
        endings.pop()
    if not endings or endings[-1] not in (".jsonl", ".csv", ".parquet"):
        raise DataError(
            f"{path}: expected a dataset that ends in .jsonl, .csv, .parquet, .jsonl.gz or .csv.gz"
        )
    return endings[-1]


def stem(path: Path) -> str:
    """Return a file's name without the endings that say what it is."""
    name = path.name.removesuffix(".gz") if path.suffix.lower() == ".gz" else path.name
    return name.rpartition(".")[0] or name


def records(path: Path) -> Iterator[Record]:
    """Read a file's rows.

    Raises:
        DataError: it cannot be read, or cannot be read on.
    """
    reader = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}[kind(path)]
    try:
        yield from reader(path)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: cannot read the dataset: {said}") from error


def fault_of(value: object, *, foreign: bool = False) -> str:
    """Say why a value cannot be a case's: it is no JSON, or a number that is none; empty when it can.

    Args:
        value: What stands in a column.
        foreign: Let pass what is no JSON at all: rows in memory may hold what a callable understands.
    """
    if value is None or isinstance(value, str | bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, expected a finite number or null"
    if isinstance(value, Mapping | list | tuple):
        inside = value.values() if isinstance(value, Mapping) else value
        return next((fault for inner in inside if (fault := fault_of(inner, foreign=foreign))), "")
    if foreign:
        return ""
    if isinstance(value, bytes):
        return "holds bytes, expected text: decode the column first"
    return f"holds a {type(value).__name__}, expected text, a number, true or false, a list or a mapping"


def _checked(line: int, row: dict[str, Json]) -> Record:
    for name, value in row.items():
        if fault := fault_of(value):
            return Record(line, problem=f"the column {name!r} {fault}")
    return Record(line, row)


def _jsonl(path: Path) -> Iterator[Record]:
    for line, raw in _lines(path):
        if not raw.strip():
            continue
        try:
            row = json.loads(_decoded(raw), object_pairs_hook=_once)
            _refuse_half_characters(raw, row)
        except ValueError as error:
            yield Record(line, problem=_unread(error))
            continue
        except RecursionError:
            yield Record(line, problem="not JSON that can be read: it is nested too deep")
            continue
        if isinstance(row, dict):
            yield _checked(line, row)
        else:
            yield Record(line, problem=f"found a {type(row).__name__}, expected a JSON object per line")


class _Twice(ValueError):
    """A key stands twice in one object."""


class _NoText(ValueError):
    """Bytes that are not the text which they should be."""


def _unread(error: ValueError) -> str:
    if isinstance(error, _Twice | _NoText):
        return str(error)
    if "integer string conversion" in str(error):
        return "a number has thousands of digits, expected one that can be counted with; write it as text"
    return f"not JSON: {error}"


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"the key {twice!r} stands twice in one object, expected it once")
    return found


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NoText(f"byte {raw[error.start]:#04x} is not UTF-8; save the file as UTF-8") from error


def _refuse_half_characters(raw: bytes, row: Json) -> None:
    """A surrogate without its other half is JSON for Python, but no text: it could not be sent anywhere."""
    if b"\\ud" not in raw and b"\\uD" not in raw:
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _NoText("half of a surrogate pair (\\ud...) stands alone, expected both or none") from error


def _csv(path: Path) -> Iterator[Record]:
    def texts() -> Iterator[str]:
        for line, raw in _lines(path):
            try:
                yield _decoded(raw)
            except ValueError as error:
                raise DataError(f"{path}:{line}: {error}") from error

    reader = csv.reader(texts(), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header = cells
                _refuse_twin_columns(path, reader.line_num, header)
            elif len(cells) != len(header):
                found = f"expected {len(header)} cells, as the header has, found {len(cells)}"
                yield Record(reader.line_num, problem=found)
            else:
                yield Record(reader.line_num, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        hint = ""
        if "field larger" in str(error):
            hint = "; a quote is not closed, or the cell is too long for CSV: use JSONL"
        yield Record(reader.line_num, problem=f"not CSV: {error}{hint}")


def _refuse_twin_columns(path: Path, line: int, header: list[str]) -> None:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}:{line}: the header names the column {twice!r} twice, expected it once")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with _opened(path) as file:
        line = 0
        while raw := file.readline(LONGEST_LINE + 1):
            line += 1
            if len(raw) > LONGEST_LINE:
                raise DataError(
                    f"{path}:{line}: longer than {LONGEST_LINE:,} bytes, expected one row per line"
                )
            if line == 1:
                if raw.startswith(_UTF_16):
                    raise DataError(f"{path}:1: the file is UTF-16, expected UTF-8; save it as UTF-8")
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            yield line, raw


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path, "rb") as packed:
            yield packed  # type: ignore[misc]  # it reads as a file does
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not gzip, or cut off: {error}") from error


def _parquet(path: Path) -> Iterator[Record]:
    parquet = need("pyarrow.parquet", extra="evals")
    with path.open("rb") as file:
        try:
            table = parquet.ParquetFile(file)
            batches = table.iter_batches(batch_size=_BATCH_ROWS)
            row = 0
            for batch in batches:
                for values in batch.to_pylist():
                    row += 1
                    yield _checked(row, {name: _plain(value) for name, value in values.items()})
        except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's errors derive from these
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: not Parquet: {error}") from error


def _plain(value: Any) -> Any:
    """Turn what Parquet has and JSON has not into what JSON has: dates to text, decimals to numbers."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):  # Parquet's map
            return {str(key): _plain(inner) for key, inner in value}
        return [_plain(inner) for inner in value]
    return value
