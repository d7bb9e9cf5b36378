"""How a purge reaches every worker: it is written into the database, and each looks there when told to."""

from __future__ import annotations

import json
import time

from trilith_gateway.caching.seam import Purge
from trilith_gateway.store.seam import Connection

_PREFIX = "purge "
_KEPT_S = 7 * 86_400.0
"""A purge is forgotten after this time: no request that it concerns is under way any more (seconds)."""


def announce(connection: Connection, purge: Purge) -> None:
    """Write a purge down, and wake the workers: they look for it when the count of changed keys has moved."""
    connection.execute(
        "insert into meta (name, value) values (?, ?)"
        " on conflict (name) do update set value = excluded.value",
        (_name(purge), repr(purge.at)),
    )
    for old in announced(connection):
        if old.at < time.time() - _KEPT_S:
            connection.execute("delete from meta where name = ?", (_name(old),))
    connection.execute("update meta set value = cast(cast(value as bigint) + 1 as text) where name = 'keys'")


def announced(connection: Connection) -> list[Purge]:
    """Return the purges that are known, one for each combination of model and team."""
    found = []
    for name, value in connection.execute("select name, value from meta").fetchall():
        if name.startswith(_PREFIX):
            model, team = json.loads(name.removeprefix(_PREFIX))
            found.append(Purge(float(value), model, team))
    return found


def _name(purge: Purge) -> str:
    return _PREFIX + json.dumps([purge.model, purge.team])
