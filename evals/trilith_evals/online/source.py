"""Reads what production wrote: prediction logs (JSON lines), and the gateway's spans and feedback.

Each source remembers how far it was read, so that a restart goes on there.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from trilith.errors import DataError
from trilith.telemetry import names
from trilith_evals.online.record import Exchange, Record
from trilith_evals.trace import recorded_messages

_MOST_SPANS = 50_000
_REFUSED = "content_filter"


@dataclass(frozen=True, slots=True)
class Label:
    """The truth about a record, and when it became known (Unix seconds)."""

    id: str
    value: float
    at: float


Row: TypeAlias = Record | Label
Position: TypeAlias = dict[str, int]
"""By file: bytes of a log, or the last row of a database."""


def read(path: Path, position: Position) -> Iterator[Row]:
    """Yield what is new since a position, and move it.

    Args:
        path: A log (`.jsonl`), a folder of them, or a database of the gateway (`traces.db`, `trilith.db`).
        position: Changed as rows are read.

    Raises:
        DataError: there is no such file, or a row is wrong.
    """
    if path.is_dir():
        for file in sorted(path.glob("*.jsonl")):
            yield from _log(file, position)
    elif not path.is_file():
        raise DataError(
            f"{path} is not there, expected a .jsonl file, a folder of them, or a gateway's database"
        )
    elif path.suffix == ".db":
        yield from _database(path, position)
    else:
        yield from _log(path, position)


def _log(path: Path, position: Position) -> Iterator[Row]:
    start = position.get(str(path), 0)
    if start > path.stat().st_size:
        start = 0  # the log was cut or began anew
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline():
            if not line.endswith(b"\n"):
                return  # still being written
            if line.strip():
                yield parse(line, f"{path} at byte {file.tell() - len(line)}")
            position[str(path)] = file.tell()


def parse(line: bytes, where: str) -> Row:
    """Read one row of a log.

    A row with `label` and `label_at` is a label for a record that came before (or comes later); any other is
    a record with the fields of `Record`.

    Raises:
        DataError: it is neither.
    """
    try:
        given = json.loads(line)
        if not isinstance(given, dict) or not isinstance(given.get("id"), str):
            raise ValueError("expected a mapping with a text `id`")
        if "label_at" in given:
            return Label(given["id"], _number(given["label"]), _number(given["label_at"]))
        label, score = given.get("label"), given.get("score")
        return Record(
            id=given["id"],
            at=_number(given["at"]),
            features={str(k): _feature(v) for k, v in dict(given.get("features") or {}).items()},
            score=None if score is None else _number(score),
            values={str(k): _number(v) for k, v in dict(given.get("values") or {}).items() if v is not None},
            embedding=[_number(v) for v in given["embedding"]] if given.get("embedding") else None,
            tenant=str(given.get("tenant") or ""),
            release=str(given.get("release") or ""),
            label=None if label is None else _number(label),
            text=str(given.get("text") or ""),
            exchange=_logged(given),
        )
    except KeyError as error:
        raise DataError(f"{where}: {error.args[0]} is missing") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: {error}") from None


def _logged(given: Mapping[str, Any]) -> Exchange | None:
    if given.get("answer") is None:
        return None
    asked = given.get("input", given.get("text") or given.get("features"))
    return Exchange(asked, str(given["answer"]), given.get("expected"), dict(given.get("fields") or {}))


def _recorded(found: Mapping[str, Any]) -> Exchange | None:
    """Return a span's question and answer; None where it has no text (`telemetry.content` is off)."""
    asked, said = (
        list(recorded_messages(found.get(names.INPUT_MESSAGES))),
        recorded_messages(found.get(names.OUTPUT_MESSAGES)),
    )
    answer = next((message["content"] for message in said), "")
    if not asked or not answer:
        return None
    alone = len(asked) == 1 and asked[0]["role"] == "user"
    return Exchange(asked[0]["content"] if alone else [dict(message) for message in asked], answer)


def _number(value: Any) -> float:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise ValueError("a value is not a finite number, expected one for at, label, score and values")


def _feature(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool):
        return None if value is None else str(value)
    if isinstance(value, int | float | str):
        return value
    raise ValueError("a feature is neither number nor text")


def _database(path: Path, position: Position) -> Iterator[Row]:
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        ) as connection:
            tables = {
                row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")
            }
            if "spans" in tables:
                yield from _spans(connection, str(path), position)
            elif "feedback" in tables:
                yield from _feedback(connection, str(path), position)
            else:
                raise DataError(f"{path} has neither spans nor feedback, expected a gateway's database")
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _spans(connection: sqlite3.Connection, path: str, position: Position) -> Iterator[Row]:
    rows = connection.execute(
        "select rowid, name, started_ns, ended_ns, attributes from spans"
        " where rowid > ? order by rowid limit ?",
        (position.get(path, 0), _MOST_SPANS),
    ).fetchall()
    spans = [(name, started, ended, json.loads(attributes)) for _, name, started, ended, attributes in rows]
    retrieved = {
        found[names.REQUEST_ID]: float(found[names.RETRIEVAL_SCORE_MAX])
        for name, _, _, found in spans
        if names.REQUEST_ID in found and names.RETRIEVAL_SCORE_MAX in found
    }
    for name, started, ended, found in spans:
        if names.HTTP_STATUS in found and names.REQUEST_ID in found and not name.startswith("attempt "):
            yield from_span(started, ended, found, retrieved)
    if rows:
        position[path] = rows[-1][0]


def from_span(
    started_ns: int, ended_ns: int, found: Mapping[str, Any], retrieved: Mapping[str, float] | None = None
) -> Record:
    """Make a record of a request's span.

    Its values: `latency_s`, `failed` (status 500 and above), `refused` (a content filter ended the answer),
    and, where the span says it, `cost_pico_usd`, `input_tokens`, `output_tokens`, `retrieval_score`.
    """
    values = {
        "latency_s": (ended_ns - started_ns) / 1e9,
        "failed": float(int(found[names.HTTP_STATUS]) >= 500),
        "refused": float(_REFUSED in found.get(names.FINISH_REASONS, ())),
    }
    for value, attribute in (
        ("cost_pico_usd", names.COST_PICO_USD),
        ("input_tokens", names.INPUT_TOKENS),
        ("output_tokens", names.OUTPUT_TOKENS),
    ):
        if attribute in found:
            values[value] = float(found[attribute])
    id = str(found[names.REQUEST_ID])
    if retrieved and id in retrieved:
        values["retrieval_score"] = retrieved[id]
    model = found.get(names.MODEL_NAME) or found.get(names.REQUEST_MODEL) or ""
    return Record(
        id=id,
        at=started_ns / 1e9,
        features={"model": str(model)},
        values=values,
        tenant=str(found.get(names.TENANT, "")),
        release="@".join(str(found[k]) for k in (names.RELEASE_NAME, names.RELEASE_VERSION) if k in found),
        text=str(found.get(names.INPUT_MESSAGES, "")),
        exchange=_recorded(found),
    )


def _feedback(connection: sqlite3.Connection, path: str, position: Position) -> Iterator[Row]:
    rows = connection.execute(
        "select rowid, request_id, score, at from feedback where rowid > ? order by rowid",
        (position.get(path, 0),),
    )
    for number, request_id, score, at in rows:
        if score is not None:
            yield Label(request_id, float(score), float(at))
        position[path] = number
