"""Puts journalled facts into the tables, many at a time; a fact that is there already changes nothing."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from trilith_gateway.store.audit import link
from trilith_gateway.store.journal import Record

_log = logging.getLogger(__name__)

_MOST_ROWS = 128
"""Rows per statement. One statement steps once, and each step hands the interpreter's lock back and forth."""


def apply(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    """Put facts into the tables, within the caller's transaction.

    A reservation whose charge comes with it is not written at all; one whose charge comes later is deleted
    then. So the table holds what is open, and what a killed process left.
    """
    reserves: dict[str, Record] = {}
    rows: dict[tuple[str, ...], list[Record]] = {}
    charged: list[str] = []
    for record in records:
        match record["t"]:
            case "charge":
                if reserves.pop(record["id"], None) is None:
                    charged.append(record["id"])
                rows.setdefault(("ledger", *record), []).append(record)
            case "reserve":
                reserves[record["id"]] = record
            case "feedback":
                rows.setdefault(("feedback", *record), []).append(record)
            case "audit":
                _append_audit(connection, record)
            case other:
                _log.error("the journal holds a fact of the unknown type %r; it is left out", other)
    if reserves:
        # Its charge may have been written before: a replay begins anywhere in the journal.
        connection.executemany(
            "insert or ignore into reservations select :id, :key_id, :amount_pico_usd, :at, 'open' "
            "where not exists (select 1 from ledger where id = :id)",
            list(reserves.values()),
        )
    for (table, *columns), found in rows.items():
        _insert(connection, table, [name for name in columns if name != "t"], found)
    if charged:
        connection.executemany("delete from reservations where id = ?", [(id,) for id in charged])


def _insert(
    connection: sqlite3.Connection, table: str, columns: Sequence[str], records: Sequence[Record]
) -> None:
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    at, size = 0, _MOST_ROWS
    while at < len(records):
        while size > len(records) - at:
            size //= 2  # few different statements, which stay prepared
        part = records[at : at + size]
        values: list[Any] = [record[name] for record in part for name in columns]
        rows = ", ".join([f"({marks})"] * size)
        connection.execute(f"insert or ignore into {table} ({names}) values {rows}", values)
        at += size


def _append_audit(connection: sqlite3.Connection, record: Record) -> None:
    if connection.execute("select 1 from audit where id = ?", (record["id"],)).fetchone():
        return
    last = connection.execute("select number, digest from audit order by number desc limit 1").fetchone()
    number, previous = (last["number"] + 1, last["digest"]) if last else (1, "")
    detail = json.dumps(record["detail"], sort_keys=True, separators=(",", ":"))
    row = (number, record["id"], record["at"], record["event"], detail, previous)
    connection.execute("insert into audit values (?, ?, ?, ?, ?, ?, ?)", (*row, link(*row)))
