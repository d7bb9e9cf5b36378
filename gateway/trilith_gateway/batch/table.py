"""Batches as the store keeps them: one row each, changed step by step."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any

from trilith.errors import NotFoundError
from trilith_gateway import request
from trilith_gateway.batch.shelf import Connect
from trilith_gateway.key import Key

OPEN = ("validating", "in_progress", "finalizing", "cancelling")
"""States in which there is still something to do."""
PREFIX = "batch_"
"""How the id of a batch begins, and with it those of its lines' charges; no other charge's id does."""
_ID = re.compile(rf"{PREFIX}[0-9a-f]{{32}}")
WINDOW_S = 86_400.0
"""How long a batch may take (seconds): OpenAI knows no other window."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch's row; times are Unix times."""

    id: str
    team: str
    key_id: str
    endpoint: str
    input_file_id: str
    metadata: str
    status: str
    at: float
    expires_at: float
    started_at: float | None
    finalizing_at: float | None
    cancelling_at: float | None
    ended_at: float | None
    total: int
    completed: int
    failed: int
    output_file_id: str | None
    error_file_id: str | None
    faults: str
    place: str
    """The home that has its files, and so runs it."""

    def shown(self) -> dict[str, object]:
        """Return OpenAI's batch object."""
        faults = json.loads(self.faults)

        def ended(status: str) -> int | None:
            return _whole(self.ended_at) if self.status == status else None

        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": faults} if faults else None,
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.at),
            "in_progress_at": _whole(self.started_at),
            "expires_at": int(self.expires_at),
            "finalizing_at": _whole(self.finalizing_at),
            "completed_at": ended("completed"),
            "failed_at": ended("failed"),
            "expired_at": ended("expired"),
            "cancelling_at": _whole(self.cancelling_at),
            "cancelled_at": ended("cancelled"),
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "metadata": json.loads(self.metadata),
        }


class Batches:
    """The table. Its methods block."""

    def __init__(self, place: str, connect: Connect) -> None:
        """Take the home's name and the way to the tables."""
        self._place = place
        self._connect = connect

    def create(self, id: str, key: Key, file_id: str, endpoint: str, metadata: object) -> Batch:
        """Make a batch that waits to be validated, under a `new_id`."""
        now = time.time()
        with self._connect() as connection:
            connection.execute(
                "insert into batches (id, team, key_id, endpoint, input_file_id, metadata, status, at,"
                " expires_at, place) values (?, ?, ?, ?, ?, ?, 'validating', ?, ?, ?)",
                (
                    id,
                    key.team,
                    key.id,
                    endpoint,
                    file_id,
                    json.dumps(metadata),
                    now,
                    now + WINDOW_S,
                    self._place,
                ),
            )
        return self.find(id, key.team)

    def find(self, id: str, team: str) -> Batch:
        """Return a team's batch.

        Raises:
            NotFoundError: the team has none of this id.
        """
        row = None
        if _ID.fullmatch(id):
            with self._connect() as connection:
                row = connection.execute(
                    "select * from batches where id = ? and team = ?", (id, team)
                ).fetchone()
        if row is None:
            raise NotFoundError(
                f"This team has no batch {id[:80]!r}. GET /v1/batches lists its batches.",
                status_code=404,
                code="batch_not_found",
                param="batch_id",
                type="invalid_request_error",
            )
        return _batch(row)

    def listed(self, team: str, *, limit: int, after: str | None) -> list[Batch]:
        """Return a page of a team's batches, newest first, and one more if there are more.

        Raises:
            BadRequestError: the team has no batch of the id `after`.
        """
        at, id = float("inf"), ""
        if after is not None:
            found = request.page_end(lambda id: self.find(id, team), after)
            at, id = found.at, found.id
        with self._connect() as connection:
            rows = connection.execute(
                "select * from batches where team = ? and (at, id) < (?, ?)"
                " order by at desc, id desc limit ?",
                (team, at, id, limit + 1),
            ).fetchall()
        return [_batch(row) for row in rows]

    def ended(self, id: str) -> bool | None:
        """Say whether a batch has ended; None: there is none."""
        with self._connect() as connection:
            row = connection.execute("select ended_at from batches where id = ?", (id,)).fetchone()
        return None if row is None else row["ended_at"] is not None

    def open(self) -> list[Batch]:
        """Return what is still to be done in this home, oldest first."""
        with self._connect() as connection:
            rows = connection.execute(
                "select * from batches where place = ? and ended_at is null order by at, id", (self._place,)
            ).fetchall()
        return [_batch(row) for row in rows]

    def cancel(self, id: str) -> bool:
        """Ask for a batch to be ended early; false when there is nothing left to end."""
        with self._connect() as connection:
            changed = connection.execute(
                "update batches set status = 'cancelling', cancelling_at = ?"
                " where id = ? and status in ('validating', 'in_progress')",
                (time.time(), id),
            )
        return int(changed.rowcount) == 1

    def count(self, id: str, completed: int, failed: int) -> None:
        """Note how far a batch is."""
        with self._connect() as connection:
            connection.execute(
                "update batches set completed = ?, failed = ? where id = ?", (completed, failed, id)
            )

    def begin(self, id: str, total: int) -> None:
        """Note that a batch was found valid; one that is being cancelled stays so."""
        with self._connect() as connection:
            connection.execute(
                "update batches set total = ?, started_at = coalesce(started_at, ?) where id = ?",
                (total, time.time(), id),
            )
            connection.execute(
                "update batches set status = 'in_progress' where id = ? and status = 'validating'", (id,)
            )

    def finalize(self, id: str) -> None:
        """Note that the last line is done and files are being written."""
        with self._connect() as connection:
            connection.execute(
                "update batches set status = 'finalizing', finalizing_at = coalesce(finalizing_at, ?)"
                " where id = ? and status in ('in_progress', 'finalizing')",
                (time.time(), id),
            )

    def end(
        self,
        id: str,
        status: str,
        *,
        faults: object = (),
        counts: tuple[int, int] = (0, 0),
        files: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """Note how a batch ended, with its counts and its output and error files."""
        with self._connect() as connection:
            connection.execute(
                "update batches set status = ?, ended_at = ?, faults = ?, completed = ?, failed = ?,"
                " output_file_id = ?, error_file_id = ? where id = ? and ended_at is null",
                (status, time.time(), json.dumps(faults), *counts, *files, id),
            )


def new_id() -> str:
    """Return an id for a batch."""
    return f"batch_{secrets.token_hex(16)}"


def _batch(row: Any) -> Batch:
    return Batch(*(row[name] for name in Batch.__slots__))


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)
