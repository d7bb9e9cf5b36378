"""Reads the cases of a suite from JSONL, CSV or Parquet, or from rows in memory, and refuses bad ones.

CSV cells stay text, unless a schema says what they are; scorers that want numbers read them from it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trilith.errors import DataError
from trilith.types import Json
from trilith_evals import table
from trilith_evals.case import Case
from trilith_evals.split import Split, place

if TYPE_CHECKING:
    from trilith_evals.schema import Checker, SchemaSettings
    from trilith_evals.sidecar import Sidecar

_MOST_FAULTS = 20
"""So many rows are complained of in one go."""


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
    content_digest: str = ""
    """sha256, hexadecimal, of what all rows say: the same in whatever order and format they stand."""

    @property
    def label(self) -> str:
        """The file's name, or `rows`."""
        return self.path.name if self.path else "rows"


def load(
    path: Path,
    columns: Columns | None = None,
    *,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    schema: SchemaSettings | None = None,
    split: str | Split | None = None,
    may_be_empty: bool = False,
) -> Dataset:
    """Read a dataset by its ending: `.jsonl`, `.csv` or `.parquet`, the first two also with `.gz`.

    What stands beside it (`NAME.schema.yaml`) is kept to: schema, parts, held out or not. With a limit, only
    so many cases are held in memory.

    Args:
        path: The file.
        columns: Which column is what.
        limit: Keep so many cases; the whole file is checked all the same.
        shuffle_seed: Draw them at random by this seed; None takes the first.
        schema: What is promised, in place of the schema beside the file.
        split: The part to take: a name that the file beside the data knows, or a part of its own.
        may_be_empty: Let a part without any case pass.

    Raises:
        DataError: the file cannot be read, is empty, lacks a column, breaks its schema, or has two rows with
            one id; the message names the file and the line (the row, for Parquet) of up to twenty faults.
        SettingsError: what stands beside the file is wrong.
    """
    sidecar = _sidecar(path)
    part = _part(split, sidecar, path)
    reading = _Reading(path, columns or Columns(), schema or sidecar, part)
    cases = _kept(reading.cases(), limit, shuffle_seed)
    reading.finish(cases or [None] * may_be_empty)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = part.name if part else ""
    held_out = sidecar.is_held_out(name) if sidecar else False
    return Dataset(cases, digest, path, name, held_out, reading.content.digest())


def stream(
    path: Path,
    columns: Columns | None = None,
    *,
    schema: SchemaSettings | None = None,
    split: str | Split | None = None,
) -> Iterator[Case]:
    """Read a dataset case by case, in memory that does not grow but by the ids; the arguments of `load`.

    Raises:
        DataError: as `load` does, at the end for faults of single rows.
    """
    sidecar = _sidecar(path)
    reading = _Reading(path, columns or Columns(), schema or sidecar, _part(split, sidecar, path))
    count = 0
    for case in reading.cases():
        count += 1
        yield case
    reading.finish([None] * min(count, 1))


def from_rows(
    rows: Iterable[Case | Mapping[str, Any]],
    columns: Columns | None = None,
    *,
    limit: int | None = None,
    split: Split | None = None,
) -> Dataset:
    """Take cases, or rows that `columns` reads, from memory.

    Raises:
        DataError: as for `load`; the place is the row's number, from 1.
    """
    given = list(rows)
    whole = [row for row in given if isinstance(row, Case)]
    if whole and len(whole) != len(given):
        raise DataError(f"data: {len(whole)} of {len(given)} rows are cases, expected all of them or none")
    columns = columns or Columns()
    reading = _Reading("data", columns, None, split)
    if whole:
        found = [
            case for case in reading.whole(whole) if split is None or split.holds(case, _key(case, columns))
        ]
    else:
        found = list(reading.cases(_plain(given)))
    cases = tuple(found)
    reading.finish(cases)
    canonical = json.dumps(
        [[c.id, c.input, c.expected, c.cluster, dict(c.fields)] for c in cases], sort_keys=True, default=str
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    name = split.name if split else ""
    return Dataset(cases[:limit], digest, split=name, content_digest=reading.content.digest())


@dataclass(slots=True)
class Content:
    """Adds up what rows say, so that neither their order nor the format of their file changes the digest.

    Null counts as no value, and 1.0 as 1: formats differ in whether they can tell them apart.
    """

    _rows: list[bytes] = field(default_factory=list)

    def add(self, row: Json) -> None:
        """Count one row in."""
        text = json.dumps(_normal(row), sort_keys=True, separators=(",", ":"), default=str)
        self._rows.append(hashlib.sha256(text.encode()).digest())

    def digest(self) -> str:
        """Return the digest of all that was added."""
        return hashlib.sha256(b"".join(sorted(self._rows))).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _normal(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_normal(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Reading:
    """One pass over rows: makes cases of them, and collects what is wrong."""

    def __init__(
        self, place: Path | str, columns: Columns, schema: SchemaSettings | None, split: Split | None
    ) -> None:
        self._place = place
        self._columns = columns
        self._split = split
        self._checker = _checker(schema, texts=isinstance(place, Path) and table.kind(place) == ".csv")
        self._ids: dict[str, int | None] = {}
        self._faults: list[tuple[str, str]] = []
        self.content = Content()
        inputs = (columns.input,) if isinstance(columns.input, str) else columns.input
        named = (*inputs, columns.expected, columns.id, columns.cluster, *columns.tags)
        self._named = [name for name in named if name is not None]

    def cases(self, records: Iterable[table.Record] | None = None) -> Iterator[Case]:
        """Return the cases of the part that is wanted, as they are read; faults are kept for `finish`."""
        given = records
        if given is None and isinstance(self._place, Path):
            given = table.records(self._place)
        for record in given or ():
            case = self._case(record)
            if len(self._faults) >= _MOST_FAULTS:
                self._refuse()
            if case is not None and (
                self._split is None or self._split.holds(case, _key(case, self._columns))
            ):
                yield case

    def whole(self, cases: Iterable[Case]) -> Iterator[Case]:
        """Check cases that are made already."""
        for number, case in enumerate(cases, start=1):
            fault = table.fault_of([case.input, case.expected], foreign=True)
            if fault:
                self._fault(number, f"the case {case.id!r} {fault}")
            self._note_id(case, f":{case.line}" if case.line else "")
            self.content.add([case.id, case.input, case.expected, case.cluster, dict(case.fields)])
            yield case

    def finish(self, cases: Sequence[object]) -> None:
        """Refuse what was read when any of it was wrong, or nothing was there."""
        if self._faults:
            self._refuse()
        if not self._ids:
            raise DataError(f"{self._place}: no rows, expected at least one case")
        if not cases and self._split is not None:
            total = len(self._ids)
            raise DataError(f"{self._place}: no case of {total} is in the split {self._split.name!r}")

    def _case(self, record: table.Record) -> Case | None:
        line = record.line
        if record.problem:
            self._fault(line, record.problem)
            return None
        row = record.row
        if self._checker is not None:
            row, broken = self._checker.check(row, line)
            for fault in broken:
                self._fault(line, fault)
        missing = next((name for name in self._named if name not in row), None)
        if missing is not None:
            has = ", ".join(row) or "none"
            self._fault(line, f"no column {missing!r}, expected it among the columns {has}")
            return None
        case = _case(row, self._columns, line)
        self._note_id(case, f":{line}")
        self.content.add(row)
        return case

    def _note_id(self, case: Case, at: str) -> None:
        if case.id in self._ids:
            first = self._ids[case.id]
            before = f" (line {first})" if first else ""
            message = f"the id {case.id!r} stands twice{before}; expected every id once"
            self._faults.append((f"{self._place}{at}", message))
        else:
            self._ids[case.id] = case.line

    def _fault(self, line: int, message: str) -> None:
        self._faults.append((f"{self._place}:{line}", message))

    def _refuse(self) -> None:
        places: dict[str, list[str]] = {}
        for at, message in self._faults[:_MOST_FAULTS]:
            places.setdefault(message, []).append(at)
        some = ", or more" if len(self._faults) >= _MOST_FAULTS else ""
        listed = [
            f"{first}: {message}" + (f" (and in {len(others)} other rows{some})" if others else "")
            for message, (first, *others) in places.items()
        ]
        if len(listed) == 1:
            raise DataError(listed[0])
        raise DataError(
            f"{self._place}: {len(listed)}{some} things are wrong:\n"
            + "\n".join(f"  {one}" for one in listed)
        )


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


def _key(case: Case, columns: Columns) -> str:
    """Return what a case's place in the splits is made from; a row's number changes with every insertion."""
    if case.cluster is not None:
        return f"cluster\0{case.cluster}"
    if not case.fields or (columns.id or "id") in case.fields:
        return f"id\0{case.id}"
    return "input\0" + json.dumps(case.input, sort_keys=True, default=str)


def _kept(cases: Iterator[Case], limit: int | None, shuffle_seed: int | None) -> tuple[Case, ...]:
    """Return the cases to run; whatever is left out has been read and checked all the same."""
    if shuffle_seed is None:
        kept: list[Case] = []
        for case in cases:
            if limit is None or len(kept) < limit:
                kept.append(case)
        return tuple(kept)
    # Files are often sorted by topic or time, and their first rows speak for one of them only.
    keyed = ((place(f"drawn\0{case.id}", shuffle_seed), case.id, case) for case in cases)
    drawn = sorted(keyed) if limit is None else heapq.nsmallest(limit, keyed)
    return tuple(case for *_, case in drawn)


def _plain(rows: Iterable[Any]) -> Iterator[table.Record]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            found = type(row).__name__
            yield table.Record(number, problem=f"found a {found}, expected a mapping from column to value")
            continue
        plain = {str(name): value for name, value in row.items()}
        at = next((name for name, value in plain.items() if table.fault_of(value, foreign=True)), None)
        if at is not None:
            fault = table.fault_of(plain[at], foreign=True)
            yield table.Record(number, problem=f"the column {at!r} {fault}")
        else:
            yield table.Record(number, plain)


def _sidecar(path: Path) -> Sidecar | None:
    table.kind(path)  # a name that no dataset has is heard of first
    if not path.with_name(f"{table.stem(path)}.schema.yaml").is_file():
        return None
    from trilith_evals.sidecar import read_sidecar

    return read_sidecar(path)


def _part(split: str | Split | None, sidecar: Sidecar | None, path: Path) -> Split | None:
    if not isinstance(split, str):
        return split
    found = sidecar.splits.part(split) if sidecar and sidecar.splits else None
    if found is None:
        known = ", ".join(sidecar.splits.shares) if sidecar and sidecar.splits else "none"
        raise DataError(
            f"{path}: no split {split!r}, expected one of those in {table.stem(path)}.schema.yaml ({known})"
        )
    return found


def _checker(schema: SchemaSettings | None, *, texts: bool) -> Checker | None:
    if schema is None:
        return None
    from trilith_evals.schema import Checker

    return Checker(schema, texts=texts)
