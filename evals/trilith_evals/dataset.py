"""Reads the cases of a suite from JSONL, CSV or Parquet, or from rows in memory, and refuses bad ones.

CSV cells stay text; scorers that want numbers read them from it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trilith.errors import DataError
from trilith.extras import need
from trilith.types import Json
from trilith_evals.case import Case


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of the data is which part of a case."""

    input: str | tuple[str, ...] = "input"
    """What the target gets; several columns become a mapping from name to value."""
    expected: str | None = None
    """The right answer, or a list of right ones; None takes `expected` where the data has it."""
    id: str | None = None
    """None takes `id` where the data has it, else the row's number."""
    cluster: str | None = None
    """What the case came from; None: all cases are independent."""
    tags: tuple[str, ...] = ()
    """What the case belongs to: figures are given for every value of these too."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Checked cases, and the digest of what they were read from."""

    cases: tuple[Case, ...]
    digest: str
    """sha256, hexadecimal: of the file's bytes, or of the rows as JSON where there is no file."""
    path: Path | None = None
    """The file; None for rows in memory."""
    split: str = ""
    """Name of the part that these cases are; empty for the whole."""
    held_out: bool = False
    """Whether nobody was to tune on these cases; reports say so."""

    @property
    def label(self) -> str:
        """The file's name, or `rows`."""
        return self.path.name if self.path else "rows"


_Rows = Iterator[tuple[int, dict[str, Json]]]


def load(
    path: Path, columns: Columns | None = None, *, limit: int | None = None, shuffle_seed: int | None = None
) -> Dataset:
    """Read a dataset by its ending: `.jsonl`, `.csv` or `.parquet`.

    Args:
        path: The file.
        columns: Which column is what.
        limit: Keep so many cases; the whole file is checked all the same.
        shuffle_seed: Draw them at random by this seed; None takes the first.

    Raises:
        DataError: the file cannot be read, is empty, lacks a column, or has two rows with one id; the
            message names the file and the line (the row, for Parquet).
    """
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: expected a dataset that ends in {', '.join(readers)}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot read the dataset: {(error.strerror or str(error)).lower()}"
        ) from error
    cases = _cases(reader(path, raw), columns or Columns(), str(path))
    if shuffle_seed is not None:
        # Files are often sorted by topic or time, and their first rows speak for one of them only.
        cases = tuple(random.Random(shuffle_seed).sample(cases, len(cases)))
    return Dataset(cases[:limit], hashlib.sha256(raw).hexdigest(), path)


def from_rows(
    rows: Iterable[Case | Mapping[str, Any]], columns: Columns | None = None, *, limit: int | None = None
) -> Dataset:
    """Take cases, or rows that `columns` reads, from memory.

    Raises:
        DataError: as for `load`; the place is the row's number, from 1.
    """
    given = list(rows)
    whole = [row for row in given if isinstance(row, Case)]
    if len(whole) == len(given):
        cases = tuple(whole)
        _refuse_empty(cases, "data")
        _refuse_twins(cases, "data")
    else:
        plain = ((n, dict(row)) for n, row in enumerate(given, start=1) if not isinstance(row, Case))
        cases = _cases(plain, columns or Columns(), "data")
    canonical = json.dumps(
        [[c.id, c.input, c.expected, c.cluster, dict(c.fields)] for c in cases], sort_keys=True, default=str
    )
    return Dataset(cases[:limit], hashlib.sha256(canonical.encode()).hexdigest())


def _cases(rows: _Rows, columns: Columns, place: str) -> tuple[Case, ...]:
    inputs = (columns.input,) if isinstance(columns.input, str) else columns.input
    named = [
        name
        for name in (*inputs, columns.expected, columns.id, columns.cluster, *columns.tags)
        if name is not None
    ]
    cases = []
    for line, row in rows:
        missing = [name for name in named if name not in row]
        if missing:
            has = ", ".join(row) or "none"
            raise DataError(f"{place}:{line}: no column {missing[0]!r}, expected it among the columns {has}")
        cases.append(_case(row, columns, line))
    checked = tuple(cases)
    _refuse_empty(checked, place)
    _refuse_twins(checked, place)
    return checked


def _case(row: dict[str, Json], columns: Columns, line: int) -> Case:
    name = columns.input
    cluster = None if columns.cluster is None else row[columns.cluster]
    return Case(
        id=str(row.get(columns.id or "id", line)),
        input=row[name] if isinstance(name, str) else {column: row[column] for column in name},
        expected=row.get(columns.expected or "expected"),
        cluster=None if cluster is None else str(cluster),
        fields=row,
        line=line,
        tags={tag: str(row[tag]) for tag in columns.tags if row[tag] is not None},
    )


def _refuse_empty(cases: Sequence[Case], place: str) -> None:
    if not cases:
        raise DataError(f"{place}: no rows, expected at least one case")


def _refuse_twins(cases: Sequence[Case], place: str) -> None:
    seen: dict[str, Case] = {}
    for case in cases:
        if case.id in seen:
            first, second = seen[case.id].line, case.line
            at = f":{second}" if second else ""
            before = f" (line {first})" if first else ""
            raise DataError(f"{place}{at}: the id {case.id!r} stands twice{before}; expected every id once")
        seen[case.id] = case


def _jsonl(path: Path, raw: bytes) -> _Rows:
    for line, text in enumerate(_text(path, raw).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}:{line}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{line}: found a {type(row).__name__}, expected a JSON object per line")
        yield line, row


def _csv(path: Path, raw: bytes) -> _Rows:
    reader = csv.DictReader(io.StringIO(_text(path, raw), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                wanted = len(reader.fieldnames or ())
                raise DataError(f"{path}:{reader.line_num}: expected {wanted} cells, as the header has")
            yield reader.line_num, dict(row)
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _parquet(path: Path, raw: bytes) -> _Rows:
    parquet = need("pyarrow.parquet", extra="evals")
    try:
        rows = parquet.read_table(io.BytesIO(raw)).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
        raise DataError(f"{path}: not Parquet: {error}") from error
    yield from enumerate(rows, start=1)


def _text(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: byte {raw[error.start]:#04x} is not UTF-8") from error
