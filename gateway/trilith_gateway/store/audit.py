"""The audit log's chain: each entry's digest covers the entry and the digest before it."""

from __future__ import annotations

import hashlib
import json

from trilith_gateway.store.seam import Connection


def link(number: int, id: str, at: float, event: str, detail: str, previous: str) -> str:
    """Return the SHA-256 (hexadecimal) of one entry chained to the one before."""
    return hashlib.sha256(json.dumps([number, id, at, event, detail, previous]).encode()).hexdigest()


def first_fault(connection: Connection) -> int | None:
    """Return the number of the first entry that was changed, removed or added by hand; None when all is well.

    An attacker who can rewrite the whole table can rewrite the chain; keep the last digest elsewhere to catch
    that too (`trilith audit verify` prints it).
    """
    expected, previous = 1, ""
    for row in connection.execute("select * from audit order by number"):
        digest = link(row["number"], row["id"], row["at"], row["event"], row["detail"], row["previous"])
        if row["number"] != expected or row["previous"] != previous or row["digest"] != digest:
            return int(row["number"])
        expected, previous = expected + 1, digest
    return None
