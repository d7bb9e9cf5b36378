"""Budgets: a call's upper bound is reserved before it starts and replaced by its charge when it ends.

One process owns the store, so the accounts live in memory and are exact under any number of concurrent
callers; the journal holds each reservation and charge, from which the accounts are rebuilt at start. A key,
its team and its org each have an account: a call is reserved in all of them that have a budget, or in none.
A call counts in the window in which it was reserved, however long it takes; so does its row in the ledger.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trilith.errors import BudgetExceededError
from trilith.money import format_usd
from trilith_gateway.key import Key
from trilith_gateway.terms import Budget, Window

Spent = Callable[[str, float], int]
"""`spent(account, since)`: pico-USD charged to an account since a Unix time; OSError: that cannot be read."""


class Exhausted(BudgetExceededError):
    """A budget does not reach for a call; says which."""

    budget: Budget


@dataclass(frozen=True, slots=True)
class Alert:
    """A budget's soft share was reached for the first time in its window, as far as this process knows."""

    budget: Budget
    window_start: float
    spent: int
    """Pico-USD."""


def unheard(alert: Alert) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Account:
    """One account's money in the present window, in pico-USD."""

    window: Window
    window_start: float
    window_end: float
    """Unix time at which the window closes; infinite for `total`."""
    spent: int
    reserved: int = 0
    unpriced: int = 0
    """The part of `spent` that no row of the ledger tells."""
    told: bool = False
    """The soft share was reached, and somebody told."""
    since: float = 0.0
    """Reservations from before count elsewhere (Unix time)."""
    stale: bool = False
    """The ledger has changed by other hands than ours; `spent` must be read again."""


class Budgets:
    """The accounts of every key, team and org that has a budget."""

    def __init__(self, spent: Spent, alert: Callable[[Alert], None] = unheard) -> None:
        """Take what knows of past charges, and what is told when a soft share is reached."""
        self._spent = spent
        self._alert = alert
        self._accounts: dict[str, Account] = {}

    def reserve(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD of every budget that the key stands under.

        Raises:
            BudgetExceededError: one of them has less than that left; nothing is held then.
            OSError: what is spent of one of them cannot be read; nothing is held then.
        """
        for budget in key.budgets:
            account = self.account(budget, now)
            if account.spent + account.reserved + amount > budget.pico_usd:
                known = f"{format_usd(account.spent)} are spent and {format_usd(account.reserved)} reserved"
                raise exceeded(budget, amount, known, account.window_end, now)
        self.hold(key, amount, now)

    def hold(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD whatever is left, because a call owes it already."""
        for budget in key.budgets:
            try:
                account = self.account(budget, now)
            except OSError:
                account = self._accounts[budget.account]
            account.reserved += amount

    def settle(self, key: Key, reserved: int, charged: int, at: float, *, unpriced: int = 0) -> None:
        """Give back what was `reserved` at the Unix time `at`, and book `charged`, both in pico-USD.

        The charge is recorded already, so that reading the ledger again finds what is booked here.

        Args:
            key: Who calls.
            reserved: What was reserved for the call.
            charged: What it cost.
            at: When it was reserved.
            unpriced: The part of `charged` that no row of the ledger tells.
        """
        for name in key.accounts:  # also where a budget was made while the call was under way
            account = self._accounts.get(name)
            if account is not None and account.since <= at:
                account.spent += charged
                account.unpriced += unpriced
        for budget in key.budgets:
            account = self._accounts.get(budget.account)
            if account is None or account.since > at:
                continue
            account.reserved = max(0, account.reserved - reserved)
            if not account.told and budget.reaches(budget.soft_percent, account.spent):
                account.told = True
                self._alert(Alert(budget, account.window_start, account.spent))

    def reread(self) -> None:
        """Take up what others have written into the ledger (adjustments), with each account's next use."""
        for account in self._accounts.values():
            account.stale = True

    def soft(self, key: Key, now: float) -> Budget | None:
        """Return a budget of the key's whose soft share is spent, if there is one."""
        for budget in key.budgets:
            if budget.reaches(budget.soft_percent, self.account(budget, now).spent):
                return budget
        return None

    def degrades(self, key: Key, amount: int, now: float) -> Budget | None:
        """Return a budget of the key's whose degrade share `amount` more would go beyond, if there is one."""
        for budget in key.budgets:
            if budget.degrade_percent is not None:
                account = self.account(budget, now)
                used = account.spent + account.reserved + amount
                if used * 100 > budget.pico_usd * budget.degrade_percent:
                    return budget
        return None

    def account(self, budget: Budget, now: float) -> Account:
        """Return a budget's account in the window that holds `now`."""
        account = self._accounts.get(budget.account)
        if account is None or account.window != budget.window:  # new, or counted differently from now on
            start, end = window(budget.window, now)
            made = Account(budget.window, start, end, self._spent(budget.account, start))
            if account is not None:
                made.reserved = account.reserved
                made.unpriced = account.unpriced if start <= account.window_start else 0
                made.spent += made.unpriced
            account = self._accounts[budget.account] = made
        elif now >= account.window_end:  # a new window: nothing is spent, nothing reserved
            start, end = window(budget.window, now)
            account = self._accounts[budget.account] = Account(budget.window, start, end, 0, since=start)
        elif account.stale:
            with contextlib.suppress(
                OSError
            ):  # what this process has booked is known; the next use asks again
                account.spent = self._spent(budget.account, account.window_start) + account.unpriced
                account.stale = False
        return account


def exceeded(budget: Budget, amount: int, known: str, window_end: float, now: float) -> Exhausted:
    """Make the error for a call that a budget does not reach for.

    Args:
        budget: Which one.
        amount: What the call may cost (pico-USD).
        known: What is known of the money that is left.
        window_end: When the window closes (Unix time), infinite for never.
        now: Unix time.
    """
    per = "" if budget.window == "total" else f" per {budget.window}"
    wait = ""
    if window_end != float("inf"):
        wait = f", or wait until {datetime.fromtimestamp(window_end, UTC):%Y-%m-%dT%H:%M:%SZ}"
    error = Exhausted(
        f"This call may cost up to {format_usd(amount)} USD, and of the {budget.level}'s budget of "
        f"{format_usd(budget.pico_usd)} USD{per} {known}. Lower max_tokens, raise the budget{wait}.",
        status_code=429,
        code="insufficient_quota",
        type="insufficient_quota",
        retry_after_s=None if window_end == float("inf") else window_end - now,
    )
    error.budget = budget
    return error


def window(kind: Window, now: float) -> tuple[float, float]:
    """Return start and end (Unix times, UTC calendar) of the window that holds `now`."""
    if kind == "total":
        return 0.0, float("inf")
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        start, end = day, day + timedelta(days=1)
    elif kind == "week":
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    else:
        start = day.replace(day=1)
        end = (start + timedelta(days=32)).replace(day=1)
    return start.timestamp(), end.timestamp()
