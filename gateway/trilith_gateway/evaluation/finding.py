"""Findings of monitors as the store keeps them: one row each, under the digest of its content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trilith.errors import NotFoundError
from trilith_gateway import request
from trilith_gateway.evaluation.run import Tables

KINDS = ("quiet", "notice", "alarm", "open", "closed", "no evidence")
"""How much a finding matters, as the monitor says it."""
_ID = re.compile(r"finding_[0-9a-f]{32}")
MOST_LINES = 10_000
"""Findings in one upload."""

_Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
_Number = Annotated[float, Field(allow_inf_nan=False)]


class Told(BaseModel):
    """One line of `trilith eval monitor`."""

    model_config = ConfigDict(extra="forbid")

    monitor: _Name
    kind: Annotated[str, Field(pattern=f"^({'|'.join(KINDS)})$")]
    source: _Name
    subject: _Name
    start: _Number
    end: _Number
    message: Annotated[str, Field(max_length=2000)] = ""
    statistic: _Number | None = None
    p: _Number | None = None
    evidence: _Number | None = None
    value: _Number | None = None
    low: _Number | None = None
    high: _Number | None = None
    n: Annotated[int, Field(ge=0)] = 0
    assumption: Annotated[str, Field(max_length=2000)] = ""
    causes: Annotated[list[dict[str, Any]], Field(max_length=1000)] = []


@dataclass(frozen=True, slots=True)
class KeptFinding:
    """One finding's row."""

    id: str
    at: float
    """When its window ended (Unix seconds)."""
    key_id: str
    monitor: str
    kind: str
    finding: str
    """The finding itself, as JSON."""

    def shown(self) -> dict[str, object]:
        """Return the object that callers see."""
        return {"id": self.id, "object": "eval.finding", **orjson.loads(self.finding)}


class Findings:
    """The table. Methods block."""

    def __init__(self, tables: Tables) -> None:
        """Take the store."""
        self._tables = tables

    def keep(self, raw: bytes, key_id: str) -> tuple[int, int]:
        """Keep what a monitor wrote, all of it or nothing; returns how many lines there were, and were new.

        Raises:
            BadRequestError: a line is no finding.
        """
        found = list(_read(raw))
        new = 0
        with self._tables.writing() as connection:
            for told in found:
                text = orjson.dumps(told.model_dump(exclude_defaults=True), option=orjson.OPT_SORT_KEYS)
                id = f"finding_{hashlib.sha256(text).hexdigest()[:32]}"
                new += connection.execute(
                    "insert into eval_findings (id, at, key_id, monitor, kind, finding)"
                    " values (?, ?, ?, ?, ?, ?) on conflict do nothing",
                    (id, told.end, key_id, told.monitor, told.kind, text.decode()),
                ).rowcount
        return len(found), new

    def listed(self, monitor: str, kind: str, *, limit: int, after: str | None) -> list[KeptFinding]:
        """Return a page of findings, the newest windows first, and one more if there are more.

        Raises:
            BadRequestError: there is no finding of the id `after`.
        """
        at, id = float("inf"), ""
        if after is not None:
            at, id = request.page_end(self._window_end, after), after
        with self._tables.reading() as connection:
            rows = connection.execute(
                "select * from eval_findings where (at, id) < (?, ?)"
                " and (cast(? as text) = '' or monitor = ?) and (cast(? as text) = '' or kind = ?)"
                " order by at desc, id desc limit ?",
                (at, id, monitor, monitor, kind, kind, limit + 1),
            ).fetchall()
        return [KeptFinding(*(row[name] for name in KeptFinding.__slots__)) for row in rows]

    def _window_end(self, id: str) -> float:
        row = None
        if _ID.fullmatch(id):
            with self._tables.reading() as connection:
                row = connection.execute("select at from eval_findings where id = ?", (id,)).fetchone()
        if row is None:
            raise NotFoundError("no such finding", status_code=404)
        return float(row["at"])


def _read(raw: bytes) -> Iterator[Told]:
    lines = [(number, line) for number, line in enumerate(raw.split(b"\n"), start=1) if line.strip()]
    if not lines or len(lines) > MOST_LINES:
        request.refuse(
            f"The body has {len(lines)} lines of JSON, expected 1 to {MOST_LINES:,}, as "
            "`trilith eval monitor` writes them.",
            None,
        )
    for number, line in lines:
        try:
            yield Told.model_validate(request.decode(line), strict=True)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            request.refuse(f"Line {number} is no finding: {where}: {first['msg']}.", None)
