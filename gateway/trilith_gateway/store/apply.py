"""Puts journalled facts into the tables, many at a time; a fact that is there already changes nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from trilith_gateway.store.audit import link
from trilith_gateway.store.journal import Record
from trilith_gateway.store.seam import Connection, Database

_log = logging.getLogger(__name__)


def apply(database: Database, connection: Connection, records: Iterable[Record], worker: str) -> None:
    """Put one worker's facts into the tables, within the caller's transaction.

    A reservation whose charge comes with it is not written at all; one whose charge comes later is deleted
    then. So the table holds what is open, and what a killed process left.
    """
    reserves: dict[str, Record] = {}
    rows: dict[tuple[str, ...], list[Record]] = {}
    charged: list[str] = []
    for record in records:
        match record["t"]:
            case "charge":
                record["worker"] = worker
                reserved = reserves.pop(record["id"], None)
                if reserved is None or "again" in reserved:  # the first one may be in the table already
                    charged.append(record["id"])
                rows.setdefault(("ledger", *record), []).append(record)
            case "reserve":
                reserves[record["id"]] = record
            case "feedback":
                rows.setdefault(("feedback", *record), []).append(record)
            case "audit":
                _append_audit(database, connection, record)
            case other:
                _log.error("the journal holds a fact of the unknown type %r; it is left out", other)
    if reserves:
        _insert_reserves(database, connection, reserves, worker)
    for (table, *columns), found in rows.items():
        database.insert(connection, table, [name for name in columns if name != "t"], found)
    if charged:
        _delete(connection, charged)


def _insert_reserves(
    database: Database, connection: Connection, reserves: dict[str, Record], worker: str
) -> None:
    # Its charge may have been written before: a replay begins anywhere in the journal.
    ids = list(reserves)
    for at in range(0, len(ids), 500):
        part = ids[at : at + 500]
        marks = ", ".join("?" * len(part))
        for row in connection.execute(f"select id from ledger where id in ({marks})", part).fetchall():
            del reserves[row[0]]
    rows = [record | {"state": "open", "worker": worker} for record in reserves.values()]
    columns = ("id", "key_id", "amount_pico_usd", "at", "state", "worker")
    database.insert(connection, "reservations", columns, rows)


def _delete(connection: Connection, ids: list[str]) -> None:
    for at in range(0, len(ids), 128):
        part = ids[at : at + 128]
        connection.execute(f"delete from reservations where id in ({', '.join('?' * len(part))})", part)


def _append_audit(database: Database, connection: Connection, record: Record) -> None:
    database.exclusive(connection, "audit")
    if connection.execute("select 1 from audit where id = ?", (record["id"],)).fetchone():
        return
    last = connection.execute("select number, digest from audit order by number desc limit 1").fetchone()
    number, previous = (last["number"] + 1, last["digest"]) if last else (1, "")
    detail = json.dumps(record["detail"], sort_keys=True, separators=(",", ":"))
    row = (number, record["id"], record["at"], record["event"], detail, previous)
    connection.execute("insert into audit values (?, ?, ?, ?, ?, ?, ?)", (*row, link(*row)))
