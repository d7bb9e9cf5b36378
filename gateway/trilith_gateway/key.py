"""API keys: made once and shown once, stored as hashes, looked up without a database on the way."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trilith_gateway.store.seam import Connection

Window = Literal["day", "month", "total"]
"""The calendar window (UTC) that a budget counts in."""

_TOKEN = re.compile(r"tl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Key:
    """Who calls, who pays, how much, how fast."""

    id: str
    name: str
    team: str
    secret_sha256: str
    budget_pico_usd: int | None
    """Most that may be spent in one window; None: no limit."""
    budget_window: Window
    requests_per_minute: int | None
    models: frozenset[str]
    """Models that the key may call; empty: all."""

    def allows(self, model: str) -> bool:
        """Say whether the key may call `model`."""
        return not self.models or model in self.models


def mint(
    name: str,
    *,
    team: str = "default",
    budget_pico_usd: int | None = None,
    budget_window: Window = "month",
    requests_per_minute: int | None = None,
    models: frozenset[str] = frozenset(),
) -> tuple[Key, str]:
    """Make a key; returns it with its secret token, which is kept nowhere."""
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(id, name, team, _digest(secret), budget_pico_usd, budget_window, requests_per_minute, models)
    return key, f"tl_{id}_{secret}"


def _digest(secret: str) -> str:
    # 256 random bits cannot be guessed, so one fast hash is enough; a slow one would only slow each request.
    return hashlib.sha256(secret.encode()).hexdigest()


def save(connection: Connection, key: Key) -> None:
    """Store a new key."""
    connection.execute(
        "insert into keys values (?, ?, ?, ?, ?, ?, ?, ?, ?, null)",
        (
            key.id,
            key.name,
            key.team,
            key.secret_sha256,
            key.budget_pico_usd,
            key.budget_window,
            key.requests_per_minute,
            ",".join(sorted(key.models)),
            time.time(),
        ),
    )


def load(connection: Connection) -> list[Key]:
    """Read every key that is not revoked."""
    return [from_row(row) for row in connection.execute("select * from keys where revoked_at is null")]


def from_row(row: Any) -> Key:
    """Build a key from its row."""
    return Key(
        id=row["id"],
        name=row["name"],
        team=row["team"],
        secret_sha256=row["secret_sha256"],
        budget_pico_usd=row["budget_pico_usd"],
        budget_window=row["budget_window"],
        requests_per_minute=row["requests_per_minute"],
        models=frozenset(filter(None, row["models"].split(","))),
    )


class KeyRing:
    """The keys that are valid now, replaced as a whole by one assignment."""

    def __init__(self, read: Callable[[], list[Key]], *, fixed: tuple[Key, ...] = ()) -> None:
        """Take keys from `read`, and `fixed` ones that live in memory only."""
        self._read = read
        self._fixed = fixed
        self.reload()

    def reload(self) -> None:
        """Read the keys again. Blocking."""
        self._read_at = time.monotonic()
        self._keys = {key.id: key for key in (*self._read(), *self._fixed)}

    def may_be_behind(self, token: str) -> bool:
        """Say whether an unknown token may be that of a key made since the last look, a moment ago."""
        return _TOKEN.fullmatch(token) is not None and time.monotonic() - self._read_at > 0.1

    def get(self, id: str) -> Key | None:
        """Return the key of an id; None when it is unknown or revoked."""
        return self._keys.get(id)

    def find(self, token: str) -> Key | None:
        """Return the key of a token; None when it is unknown, revoked or malformed."""
        match = _TOKEN.fullmatch(token)
        if match is None or (key := self._keys.get(match[1])) is None:
            return None
        return key if hmac.compare_digest(key.secret_sha256, _digest(match[2])) else None
