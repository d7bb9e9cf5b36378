"""Runs of suites as the store keeps them: one row each under the digest of its content, and one per suite."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import orjson
from pydantic import BaseModel, Field, ValidationError

from trilith.errors import DataError, NotFoundError
from trilith_gateway import request

if TYPE_CHECKING:
    from trilith_evals.contest import Line
    from trilith_evals.report import Report

PREFIX = "evalrun_"
"""How the id of a run begins."""
_ID = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")
_MOST_SUITES = 1000
_MOST_SAID = 300
"""How much of what is wrong with a run is told (characters)."""

_Name = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]  # PostgreSQL keeps no NUL
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Tables(Protocol):
    """The store's tables, as one call sees them."""

    def reading(self) -> AbstractContextManager[Any]:
        """Give a connection."""
        ...

    def writing(self) -> AbstractContextManager[Any]:
        """Give a connection in a transaction."""
        ...


class _Row(BaseModel):
    """What makes a row one."""

    id: str
    repeat: Annotated[int, Field(ge=0)]
    scores: dict[str, dict[str, Any]]


class _Suite(BaseModel):
    """What a suite's report holds beside its figures and checks, which `archive` looks into."""

    name: Annotated[_Name, Field(min_length=1)]
    target: _Name
    task: _Name
    data: _Name
    digest: _Name
    cases: Annotated[int, Field(ge=0)]
    repeats: Annotated[int, Field(ge=0)]
    duration_s: _Seconds
    figures: list[dict[str, Any]]
    rows: list[_Row]
    split: _Name = ""
    held_out: bool = False
    looks: int = 0
    planned_rows: int = 0
    baseline: _Name = ""
    parameters: dict[str, Any] = {}
    releases: Annotated[list[_Name], Field(max_length=1000)] = []


class _Told(BaseModel):
    """What a run's JSON holds."""

    started: str
    duration_s: _Seconds
    content: bool | None = None
    suites: Annotated[list[_Suite], Field(min_length=1, max_length=_MOST_SUITES)]


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run's row, without the run itself."""

    id: str
    at: float
    """When it was uploaded (Unix seconds)."""
    key_id: str
    outcome: str
    bytes: int
    summary: str
    """What a list shows of its suites, as JSON."""

    def shown(self) -> dict[str, object]:
        """Return the object that callers see."""
        return {
            "id": self.id,
            "object": "eval.run",
            "created_at": int(self.at),
            "key_id": self.key_id,
            "outcome": self.outcome,
            "bytes": self.bytes,
            **orjson.loads(self.summary),
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs a list shows; empty fields ask for nothing. All but the outcome are about one suite."""

    suite: str = ""
    model: str = ""
    release: str = ""
    outcome: str = ""


class Runs:
    """The tables. Methods block."""

    def __init__(self, tables: Tables) -> None:
        """Take the store."""
        self._tables = tables

    def keep(self, raw: bytes, key_id: str) -> tuple[KeptRun, bool]:
        """Keep a run, as `trilith eval run --json` writes it; whether it is new is returned with it.

        A run that is there already, by its content, stays as it is.

        Raises:
            BadRequestError: it is no run, or none that could be shown and compared.
        """
        told = request.decode(raw)
        report, suites = checked(told)
        digest = hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()
        text = orjson.dumps(told)
        made = KeptRun(
            f"{PREFIX}{digest[:32]}",
            time.time(),
            key_id,
            report.outcome.value,
            len(text),
            orjson.dumps(_summary(report)).decode(),
        )
        with self._tables.writing() as connection:
            row = (made.id, made.at, made.key_id, made.outcome, made.bytes, made.summary, text.decode())
            changed = connection.execute(
                "insert into eval_runs (id, at, key_id, outcome, bytes, summary, run)"
                " values (?, ?, ?, ?, ?, ?, ?) on conflict do nothing",
                row,
            )
            if not changed.rowcount:
                return _run(_found(connection, made.id)), False
            for suite in suites:
                for release in suite.releases or [""]:
                    connection.execute(
                        "insert into eval_suites (run_id, suite, model, release) values (?, ?, ?, ?)"
                        " on conflict do nothing",
                        (made.id, suite.name, model_of(suite.target), release.removeprefix("sha256:")),
                    )
        return made, True

    def find(self, id: str) -> KeptRun:
        """Return a run's row.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._tables.reading() as connection:
            return _run(_found(connection, id))

    def whole(self, id: str) -> tuple[KeptRun, bytes]:
        """Return a run's row with the run itself, as JSON; raises as `find` does."""
        with self._tables.reading() as connection:
            row = _found(connection, id)
            text = connection.execute("select run from eval_runs where id = ?", (id,)).fetchone()
        if text is None:  # deleted in between
            raise _nothing(id)
        return _run(row), text["run"].encode()

    def listed(self, wanted: Wanted, *, limit: int, after: str | None) -> list[KeptRun]:
        """Return a page of runs, newest first, and one more if there are more.

        Raises:
            BadRequestError: there is no run of the id `after`.
        """
        at, id = float("inf"), ""
        if after is not None:
            found = request.page_end(self.find, after)
            at, id = found.at, found.id
        release = wanted.release.removeprefix("sha256:")
        with self._tables.reading() as connection:
            rows = connection.execute(
                "select id, at, key_id, outcome, bytes, summary from eval_runs where (at, id) < (?, ?)"
                " and (cast(? as text) = '' or outcome = ?)"
                " and exists (select 1 from eval_suites where run_id = eval_runs.id"
                " and (cast(? as text) = '' or suite = ?) and (cast(? as text) = '' or model = ?)"
                " and (cast(? as text) = '' or release = ?))"
                " order by at desc, id desc limit ?",
                (
                    *(at, id),
                    *(wanted.outcome, wanted.outcome),
                    *(wanted.suite, wanted.suite),
                    *(wanted.model, wanted.model),
                    *(release, release),
                    limit + 1,
                ),
            ).fetchall()
        return [_run(row) for row in rows]

    def delete(self, id: str) -> None:
        """Delete a run; raises as `find` does."""
        if not _ID.fullmatch(id):
            raise _nothing(id)
        with self._tables.writing() as connection:
            if not connection.execute("delete from eval_runs where id = ?", (id,)).rowcount:
                raise _nothing(id)
            connection.execute("delete from eval_suites where run_id = ?", (id,))


def checked(told: Mapping[str, Any]) -> tuple[Report, list[_Suite]]:
    """Return the run that was told of; it can be shown as a page and be held against another one.

    Raises:
        BadRequestError: it is none.
    """
    from trilith_evals import archive, recorded

    try:
        suites = _Told.model_validate(told, strict=True).suites
        report = archive.report(told, "the body")
        recorded.suites(told, "the body")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        request.refuse(f"The body is no run of suites: {where}: {first['msg']}.", where)
    except DataError as error:
        request.refuse(str(error)[:_MOST_SAID], None)
    if len({suite.name for suite in suites}) < len(suites):
        request.refuse("The body has two suites of one name.", "suites")
    return report, suites


def contested(
    baseline: bytes, candidate: bytes, *, margin: float, alpha: float
) -> tuple[list[dict[str, Any]], str]:
    """Hold one run against another; returns the lines as plain values, and what they come to.

    Raises:
        BadRequestError: they cannot be compared.
    """
    from trilith_evals import contest, recorded
    from trilith_evals.gate import worst
    from trilith_evals.report import line_json

    try:
        lines: list[Line] = contest.against(
            recorded.suites(orjson.loads(baseline), "the baseline"),
            recorded.suites(orjson.loads(candidate), "the candidate"),
            margin=margin,
            alpha=alpha,
        )
    except DataError as error:
        request.refuse(f"The runs cannot be compared: {str(error)[:_MOST_SAID]}.", None)
    outcome = worst(line.check.outcome for line in lines if not line.slice)
    return [line_json(line) for line in lines], outcome.value


def paged(run: bytes, *, content: bool) -> str:
    """Return a run as one HTML page, without inputs and answers where `content` is off."""
    from dataclasses import replace

    from trilith_evals import archive
    from trilith_evals.output.page import page

    report = archive.report(orjson.loads(run))
    return page(replace(report, content=report.content and content))


def model_of(target: str) -> str:
    """Return the model's name out of a target's, such as `support@0123456789ab version 3`."""
    return target.partition(" version ")[0].partition("@")[0]


def _summary(report: Report) -> dict[str, Any]:
    return {
        "started": report.started.isoformat(),
        "duration_s": report.duration_s,
        "content": report.content,
        "suites": [
            {
                "name": suite.name,
                "target": suite.target,
                "model": model_of(suite.target),
                "task": suite.task,
                "releases": list(suite.releases),
                "outcome": suite.outcome.value,
                "cases": suite.cases,
                "digest": suite.digest,
                "figures": [
                    {
                        "metric": figure.metric,
                        "value": figure.estimate.value,
                        "low": figure.estimate.low,
                        "high": figure.estimate.high,
                        "n": figure.estimate.n,
                    }
                    for figure in suite.figures
                    if figure.estimate is not None
                ],
            }
            for suite in report.suites
        ],
    }


def _found(connection: Any, id: str) -> Any:
    row = None
    if _ID.fullmatch(id):
        row = connection.execute(
            "select id, at, key_id, outcome, bytes, summary from eval_runs where id = ?", (id,)
        ).fetchone()
    if row is None:
        raise _nothing(id)
    return row


def _nothing(id: str) -> NotFoundError:
    return NotFoundError(
        f"There is no run {id[:80]!r}. GET /admin/v1/evals/runs lists those that there are.",
        status_code=404,
        code="run_not_found",
        param="id",
        type="invalid_request_error",
    )


def _run(row: Any) -> KeptRun:
    return KeptRun(*(row[name] for name in KeptRun.__slots__))
