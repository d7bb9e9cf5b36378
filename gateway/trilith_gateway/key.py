"""API keys: made once and shown once, stored as hashes, looked up without a database on the way."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from trilith_gateway import group
from trilith_gateway.group import Groups
from trilith_gateway.store.seam import Connection
from trilith_gateway.terms import Budget, Rates, Terms, Window, read_terms

Priority = Literal["interactive", "batch"]
"""Which of a full model's two queues a key's requests wait in."""
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

_MOST_SEEN = 10_000
_TOKEN = re.compile(r"tl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Key:
    """Who calls, who pays, how much, how fast; with all that its team and org say about it."""

    id: str
    name: str
    team: str
    secret_sha256: str
    terms: Terms
    """Its own; those of its team and org are in `budgets` and the rates only."""
    models: frozenset[str]
    """Models that the key may call; empty: all."""
    priority: Priority = "interactive"
    admin: bool = False
    """Whether it may ask under `/admin`, about the whole platform; it calls no further models for that."""
    org: str = ""
    """The team's; empty: none."""
    weight: int = 1
    """The team's share when a model is full, compared with other teams."""
    accounts: tuple[str, ...] = ()
    """Where its charges count: `key:ID`, `team:NAME`, `org:NAME`."""
    budgets: tuple[Budget, ...] = ()
    """Of the accounts that have one."""
    shares: bool = False
    """Whether one of the budgets has a soft or a degrade share."""
    request_rates: tuple[Rates, ...] = ()
    """Of the accounts with a limit on requests."""
    work_rates: tuple[Rates, ...] = ()
    """Of the accounts with a limit on tokens or concurrency."""

    def allows(self, model: str) -> bool:
        """Say whether the key may call `model`."""
        return not self.models or model in self.models

    def under(self, groups: Groups) -> Key:
        """Return the key as it stands under its team and org."""
        team = groups.teams.get(self.team)
        org = team.org if team is not None else ""
        levels = [(f"key:{self.id}", self.terms), (f"team:{self.team}", team.terms if team else Terms())]
        if org:
            levels.append((f"org:{org}", groups.orgs.get(org, Terms())))
        found = [terms.budget(account) for account, terms in levels]
        budgets = tuple(budget for budget in found if budget is not None)
        rates = [terms.rates(account) for account, terms in levels]
        return replace(
            self,
            org=org,
            weight=team.weight if team is not None else 1,
            accounts=tuple(account for account, _ in levels),
            budgets=budgets,
            shares=any(budget.has_shares for budget in budgets),
            request_rates=tuple(limits for limits in rates if limits.requests_per_minute is not None),
            work_rates=tuple(limits for limits in rates if limits.bounds_work),
        )


def mint(
    name: str,
    *,
    team: str = "default",
    budget_pico_usd: int | None = None,
    budget_window: Window = "month",
    requests_per_minute: int | None = None,
    models: frozenset[str] = frozenset(),
    terms: Terms | None = None,
    priority: Priority = "interactive",
    admin: bool = False,
) -> tuple[Key, str]:
    """Make a key; returns it with its secret token, which is kept nowhere.

    `terms` stands for the three arguments that name parts of them.
    """
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    terms = terms or Terms(budget_pico_usd, budget_window, requests_per_minute=requests_per_minute)
    key = Key(id, name, team, _digest(secret), terms, models, priority, admin).under(Groups())
    return key, f"tl_{id}_{secret}"


def _digest(secret: str) -> str:
    # 256 random bits cannot be guessed, so one fast hash is enough; a slow one would only slow each request.
    return hashlib.sha256(secret.encode()).hexdigest()


def save(connection: Connection, key: Key) -> None:
    """Store a new key."""
    row = {
        "id": key.id,
        "name": key.name,
        "team": key.team,
        "secret_sha256": key.secret_sha256,
        "models": ",".join(sorted(key.models)),
        "priority": key.priority,
        "admin": int(key.admin),
        "created_at": time.time(),
        **key.terms.columns(),
    }
    marks = ", ".join("?" * len(row))
    connection.execute(f"insert into keys ({', '.join(row)}) values ({marks})", tuple(row.values()))


def load(connection: Connection, *, fixed: tuple[Key, ...] = ()) -> list[Key]:
    """Read every key that is not revoked, and put them and `fixed` ones under their teams and orgs."""
    groups = group.load(connection)
    rows = connection.execute("select * from keys where revoked_at is null")
    return [key.under(groups) for key in (*(from_row(row) for row in rows), *fixed)]


def from_row(row: Any) -> Key:
    """Build a key from its row."""
    return Key(
        id=row["id"],
        name=row["name"],
        team=row["team"],
        secret_sha256=row["secret_sha256"],
        terms=read_terms(row),
        models=frozenset(filter(None, row["models"].split(","))),
        priority=row["priority"],
        admin=bool(row["admin"]),
    )


class KeyRing:
    """The keys that are valid now, replaced as a whole by one assignment."""

    def __init__(self, read: Callable[[], list[Key]], version: Callable[[], object] = object) -> None:
        """Take keys from `read`; `version` returns what differs when they have changed, and costs little."""
        self._read = read
        self._version = version
        self._lock = threading.Lock()
        self.reload()

    def reload(self) -> None:
        """Read the keys again. Blocking."""
        with self._lock:  # two threads may ask; the older read must not win
            self._take(self._version())

    def catch_up(self) -> None:
        """Read the keys again if they have changed since. Blocking; who waited for another's read has it."""
        with self._lock:
            version = self._version()
            if version != self._taken:
                self._take(version)

    def _take(self, version: object) -> None:
        self._keys = {key.id: key for key in self._read()}
        self._seen: dict[str, Key] = {}
        self._taken = version  # told before the read, so that it is never newer than the keys

    def may_be_behind(self, token: str) -> bool:
        """Say whether an unknown token may be that of a key made since the last read."""
        match = _TOKEN.fullmatch(token)
        return match is not None and match[1] not in self._keys

    def get(self, id: str) -> Key | None:
        """Return the key of an id; None when it is unknown or revoked."""
        return self._keys.get(id)

    def find(self, token: str) -> Key | None:
        """Return the key of a token; None when it is unknown, revoked or malformed."""
        seen = self._seen
        if (known := seen.get(token)) is not None:  # hashed with the process's own secret
            return known
        match = _TOKEN.fullmatch(token)
        if match is None or (key := self._keys.get(match[1])) is None:
            return None
        if not hmac.compare_digest(key.secret_sha256, _digest(match[2])):
            return None
        if len(seen) >= _MOST_SEEN:
            seen.clear()
        seen[token] = key
        return key
