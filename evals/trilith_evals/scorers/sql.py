"""Does the answer's SQL give the rows that the expected SQL gives?"""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from trilith_evals.case import Case, Output
from trilith_evals.score import Score, scored, unscored
from trilith_evals.scorers.text import NO_EXPECTED

_Row: TypeAlias = tuple[object, ...]

_FENCED = re.compile(r"```\w*[^\S\n]*\n(.*?)```", re.DOTALL)
_ORDERED = re.compile(r"\border\s+by\b[^()]*\Z", re.IGNORECASE)
_READING = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_LARGEST_VALUE = 1_000_000
"""Bytes of one value; `zeroblob` could else fill the memory."""
_MOST_BYTES = 64_000_000
"""Of all values of an answer together: many large ones would fill it too."""
_MOST_PAGES = 65_536
"""Of the copy in memory, of 4 KiB: 256 MiB."""
_ELSEWHERE = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH})
"""What reaches other files; VACUUM INTO attaches too."""


@dataclass(frozen=True, slots=True)
class Sql:
    """1 when the answer's query and the expected one return the same rows from the same SQLite database.

    Both run on a copy in memory and can only read it. Equal rows on one database are evidence, not proof:
    give tables with rows that tell a wrong query from a right one.
    """

    database: str | None = None
    """SQLite file. None: the case's row holds a script that makes the tables."""
    setup: str = "setup"
    """Column with that script, SQL that creates and fills the tables."""
    order: Literal["auto", "kept", "free"] = "auto"
    """Whether rows must come in order; auto: where the expected query ends in ORDER BY."""
    timeout_s: float = 5.0
    """Longest time for one query (seconds); a slower answer scores 0."""
    max_rows: int = 100_000
    """An answer with more rows scores 0, an expected query with more leaves the case unscored."""
    name: ClassVar[str] = "sql"

    def __post_init__(self) -> None:
        if self.database is not None and not Path(self.database).is_file():
            raise ValueError(f"database {self.database!r} is not a file")
        if self.timeout_s <= 0 or self.max_rows < 1:
            raise ValueError("timeout_s and max_rows must be more than 0")

    def __call__(self, case: Case, output: Output) -> Score:
        """Score one case."""
        if not case.golds:
            return unscored(NO_EXPECTED)
        try:
            with closing(self._opened(case)) as database:
                wanted = [(self._rows(database, gold), self._keeps(gold)) for gold in case.golds]
                try:
                    found = self._rows(database, query_of(output.text))
                except _Refused as error:
                    return scored(0.0, detail=str(error))
        except _Refused as error:
            return unscored("the expected query does not run", detail=str(error))
        except (ValueError, sqlite3.Error) as error:
            return unscored("the case's database could not be made", detail=str(error))
        same = any(found == rows if keeps else Counter(found) == Counter(rows) for rows, keeps in wanted)
        return scored(same, detail="" if same else f"{len(found)} rows, expected {len(wanted[0][0])}")

    def _keeps(self, gold: str) -> bool:
        return self.order == "kept" or (self.order == "auto" and _ORDERED.search(gold) is not None)

    def _opened(self, case: Case) -> sqlite3.Connection:
        database = sqlite3.connect(":memory:")
        if self.database is not None:
            uri = f"{Path(self.database).resolve().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, uri=True)) as file:
                file.backup(database)
        else:
            script = case.fields.get(self.setup)
            if not isinstance(script, str) or not script.strip():
                database.close()
                raise ValueError(f"the case has no script in {self.setup!r}")
            try:
                self._made(database, script)
            except sqlite3.Error:
                database.close()
                raise
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
        database.set_authorizer(_only_reading)
        return database

    def _made(self, database: sqlite3.Connection, script: str) -> None:
        """Run the script that makes the tables: it comes with the data, and must reach nothing but them."""
        database.execute(f"pragma max_page_count = {_MOST_PAGES}")
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
        database.set_authorizer(_at_home)
        with _limited(database, self.timeout_s):
            database.executescript(script)

    def _rows(self, database: sqlite3.Connection, query: str) -> list[_Row]:
        """Run one query.

        Raises:
            _Refused: it does not run, takes too long, gives too much, or does more than read.
        """
        with _limited(database, self.timeout_s):
            try:
                return self._fetched(database.execute(query))
            except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
                raise _Refused(str(error)) from None

    def _fetched(self, rows: Iterable[_Row]) -> list[_Row]:
        found: list[_Row] = []
        held = 0
        for row in rows:
            held += sum(len(value) for value in row if isinstance(value, str | bytes))
            if held > _MOST_BYTES:
                raise _Refused(f"more than {_MOST_BYTES:,} bytes")
            if len(found) == self.max_rows:
                raise _Refused(f"more than {self.max_rows:,} rows")
            found.append(tuple(_plain(value) for value in row))
        return found


class _Refused(Exception):
    """A query gave no rows to compare."""


def query_of(text: str) -> str:
    """Return the SQL of an answer: its last code block, or all of it; a closing semicolon is dropped."""
    blocks = _FENCED.findall(text)
    return str(blocks[-1] if blocks else text).strip().rstrip(";").rstrip()


def _only_reading(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY


def _at_home(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action in _ELSEWHERE else sqlite3.SQLITE_OK


@contextmanager
def _limited(database: sqlite3.Connection, timeout_s: float) -> Iterator[None]:
    """Interrupt a query when its time is over; looked at every 10,000 steps of SQLite's machine."""
    until = time.monotonic() + timeout_s
    database.set_progress_handler(lambda: int(time.monotonic() > until), 10_000)
    try:
        yield
    finally:
        database.set_progress_handler(None, 0)


def _plain(value: object) -> object:
    """Make numbers of one value equal whatever their last digits are: sums depend on the order of rows."""
    return float(f"{value:.9g}") if isinstance(value, float) else value
