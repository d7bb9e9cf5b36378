"""Terms: what may be spent and sent by one key, by all keys of a team, by all teams of an org."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Window = Literal["day", "week", "month", "total"]
"""The calendar window (UTC) that a budget counts in; weeks begin on Monday."""
WINDOWS: tuple[Window, ...] = get_args(Window)


@dataclass(frozen=True, slots=True)
class Budget:
    """The money of one account in one window."""

    account: str
    """`key:ID`, `team:NAME` or `org:NAME`."""
    pico_usd: int
    window: Window
    soft_percent: int | None = None
    """From this share on (percent) people are told; None: never."""
    degrade_percent: int | None = None
    """What would go beyond this share (percent) is answered by `degrade_to`; None: never."""
    degrade_to: str = ""

    @property
    def level(self) -> str:
        """Return `key`, `team` or `org`."""
        return self.account.partition(":")[0]

    @property
    def has_shares(self) -> bool:
        """Say whether anything happens before the whole is spent."""
        return self.soft_percent is not None or self.degrade_percent is not None

    def reaches(self, percent: int | None, amount: int) -> bool:
        """Say whether `amount` (pico-USD) is at least `percent` of the budget; nothing reaches None."""
        return percent is not None and amount * 100 >= self.pico_usd * percent


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast one account may go; None: no limit."""

    account: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    """Requests under way at once."""

    @property
    def bounds_work(self) -> bool:
        """Say whether tokens or requests under way are limited."""
        return self.tokens_per_minute is not None or self.max_concurrency is not None


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed with one key, team or org; the fields are the tables' columns."""

    budget_pico_usd: int | None = None
    """Most that may be spent in one window; None: no limit."""
    budget_window: Window = "month"
    soft_percent: int | None = None
    degrade_percent: int | None = None
    degrade_to: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None

    def budget(self, account: str) -> Budget | None:
        """Return the budget for an account; None: it has none."""
        if self.budget_pico_usd is None:
            return None
        return Budget(
            account,
            self.budget_pico_usd,
            self.budget_window,
            self.soft_percent,
            self.degrade_percent,
            self.degrade_to,
        )

    def rates(self, account: str) -> Rates:
        """Return the limits for an account."""
        return Rates(account, self.requests_per_minute, self.tokens_per_minute, self.max_concurrency)

    def columns(self) -> dict[str, Any]:
        """Return what the tables hold."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = tuple(field.name for field in fields(Terms))


def read_terms(row: Any) -> Terms:
    """Read the terms from a row of keys, teams or orgs."""
    return Terms(**{name: row[name] for name in COLUMNS})
