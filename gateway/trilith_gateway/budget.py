"""Budgets: a call's upper bound is reserved before it starts and replaced by its charge when it ends.

One process owns the store, so the accounts live in memory and are exact under any number of concurrent
callers; the journal holds each reservation and charge, from which the accounts are rebuilt at start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trilith.errors import BudgetExceededError
from trilith.money import format_usd
from trilith_gateway.key import Key, Window

Spent = Callable[[str, float], int]
"""`spent(key_id, since)`: pico-USD charged to a key since a Unix time."""


@dataclass(slots=True)
class Account:
    """One key's money in the present window, in pico-USD."""

    window_start: float
    window_end: float
    """Unix time at which the window closes; infinite for `total`."""
    spent: int
    reserved: int = 0
    stale: bool = False
    """The ledger has changed by other hands than ours; `spent` must be read again."""


class Budgets:
    """Every key's account."""

    def __init__(self, spent: Spent) -> None:
        self._spent = spent
        self._accounts: dict[str, Account] = {}

    def reserve(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD of the key's budget.

        Raises:
            BudgetExceededError: what is spent and reserved leaves less than that; nothing is held.
        """
        account = self.account(key, now)
        limit = key.budget_pico_usd
        if limit is not None and account.spent + account.reserved + amount > limit:
            raise BudgetExceededError(
                f"this call may cost up to {format_usd(amount)} USD, and of the key's budget of "
                f"{format_usd(limit)} USD per {key.budget_window} {format_usd(account.spent)} are spent and "
                f"{format_usd(account.reserved)} reserved. "
                "Lower max_tokens, raise the budget, or wait for the window",
                status_code=429,
                code="insufficient_quota",
                type="insufficient_quota",
                retry_after_s=None if account.window_end == float("inf") else account.window_end - now,
            )
        account.reserved += amount

    def settle(self, key: Key, reserved: int, charged: int, now: float) -> None:
        """Give back `reserved` and book `charged`, both in pico-USD."""
        account = self.account(key, now)
        account.reserved = max(0, account.reserved - reserved)
        account.spent += charged

    def reread(self) -> None:
        """Take up what others have written into the ledger (adjustments), with each account's next use."""
        for account in self._accounts.values():
            account.stale = True

    def account(self, key: Key, now: float) -> Account:
        """Return the key's account in the window that holds `now`."""
        account = self._accounts.get(key.id)
        if account is None:
            start, end = window(key.budget_window, now)
            account = self._accounts[key.id] = Account(start, end, self._spent(key.id, start))
        elif now >= account.window_end:  # a new window: nothing is spent, open reservations go along
            start, end = window(key.budget_window, now)
            account = self._accounts[key.id] = Account(start, end, 0, account.reserved)
        elif account.stale:
            account.spent, account.stale = self._spent(key.id, account.window_start), False
        return account


def window(kind: Window, now: float) -> tuple[float, float]:
    """Return start and end (Unix times, UTC calendar) of the window that holds `now`."""
    moment = datetime.fromtimestamp(now, UTC)
    if kind == "day":
        start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        return start.timestamp(), (start + timedelta(days=1)).timestamp()
    if kind == "month":
        start = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return start.timestamp(), (start + timedelta(days=32)).replace(day=1).timestamp()
    return 0.0, float("inf")
