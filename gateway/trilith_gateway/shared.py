"""Budgets that several processes keep together, without asking each other every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trilith_gateway.budget import Alert, exceeded, unheard, window
from trilith_gateway.key import Key
from trilith_gateway.terms import Budget, Window

_SHARE = 100
"""A worker takes at least one part in so many of a budget at a time, as long as there is enough."""


class Purse(Protocol):
    """Where money is leased; see `store.seam.Store`."""

    @property
    def lease_epoch(self) -> int:
        """Changes when this process was taken for dead, and its leases with it."""
        ...

    def leases_valid(self, epoch: int) -> bool:
        """Say whether what was leased in that epoch may still be spent.

        A process that was silent for too long may have been taken for dead, and its leases by others.
        """
        ...

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        """Take money, atomically over all processes; 0 when less than `at_least` is left."""
        ...

    def leased(self, account: str, window_start: float) -> int:
        """Return what all processes have taken, which is at least what they have spent."""
        ...

    def give_back(self, account: str, window_start: float, amount: int) -> None:
        """Return what was taken and not spent."""
        ...


@dataclass(slots=True)
class _Account:
    window: Window
    window_start: float
    window_end: float
    epoch: int
    held: int = 0
    """Leased and not spent yet, reservations included (pico-USD)."""
    reserved: int = 0
    total: int | None = None
    """What all processes had taken at the last look, kept where a share of the budget means something."""
    idle: bool = False
    """Nothing was reserved since the last look."""
    told: bool = False
    since: float = 0.0
    """Reservations from before count elsewhere (Unix time)."""

    @property
    def spent(self) -> int:
        """What is spent at most: all that others have taken, and of ours what is not held any more."""
        return (self.total or 0) - self.held


class LeasedBudgets:
    """Keeps budgets out of leases: the sum of what all processes hold and have spent never exceeds a budget.

    What one process holds another cannot spend; so leases are small parts, and idle ones are given back. For
    the same reason a share of a budget is reached up to one such part per process early or late.
    """

    def __init__(self, purse: Purse, alert: Callable[[Alert], None] = unheard) -> None:
        """Take where money is leased, and what is told when a soft share is reached."""
        self._purse = purse
        self._alert = alert
        self._accounts: dict[str, _Account] = {}

    def reserve(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD of every budget that the key stands under.

        Raises:
            BudgetExceededError: one of them has less than that left; nothing is held then.
        """
        for budget in key.budgets:
            account = self._account(budget, now)
            valid = self._purse.leases_valid(account.epoch)
            missing = amount - (account.held - account.reserved if valid else 0)
            if missing > 0:  # what is leased here stays idle if the next budget refuses, and goes back
                wanted = max(missing, budget.pico_usd // _SHARE)
                taken = self._purse.lease(
                    budget.account, account.window_start, budget.pico_usd, missing, wanted
                )
                if not taken:
                    raise exceeded(budget, amount, "less than that is left", account.window_end, now)
                account.held += taken
                self._look(budget, account)
        for budget in key.budgets:
            account = self._accounts[budget.account]
            account.reserved += amount
            account.idle = False

    def settle(self, key: Key, reserved: int, charged: int, at: float) -> None:
        """Give back what was `reserved` at the Unix time `at`, and book `charged`, both in pico-USD."""
        for budget in key.budgets:
            account = self._known(budget, self._accounts[budget.account])
            if account.since > at:
                continue
            account.reserved = max(0, account.reserved - reserved)
            self._book(budget.account, account, charged)
            if not account.told and budget.reaches(budget.soft_percent, account.spent):
                account.told = True
                self._alert(Alert(budget, account.window_start, account.spent))
        if len(key.budgets) < len(key.accounts):
            held = {budget.account for budget in key.budgets}
            for name in key.accounts:  # a budget may have been made while the call was under way
                late = self._accounts.get(name) if name not in held else None
                if late is not None and late.since <= at:
                    self._book(name, late, charged)

    def soft(self, key: Key, now: float) -> Budget | None:
        """Return a budget of the key's whose soft share is spent, if there is one."""
        for budget in key.budgets:
            if budget.reaches(budget.soft_percent, self._account(budget, now).spent):
                return budget
        return None

    def degrades(self, key: Key, amount: int, now: float) -> Budget | None:
        """Return a budget of the key's whose degrade share `amount` more would go beyond, if there is one."""
        for budget in key.budgets:
            if budget.degrade_percent is not None:
                account = self._account(budget, now)
                used = account.spent + account.reserved + amount
                if used * 100 > budget.pico_usd * budget.degrade_percent:
                    return budget
        return None

    def idle(self) -> list[tuple[str, float, int]]:
        """Let go what has lain idle since the last time; the caller hands it to `Purse.give_back`."""
        found: list[tuple[str, float, int]] = []
        for name, account in self._accounts.items():
            free = account.held - account.reserved
            if account.idle and free > 0 and self._purse.leases_valid(account.epoch):
                account.held -= free
                if account.total is not None:
                    account.total -= free
                found.append((name, account.window_start, free))
            account.idle = True
        return found

    def keep(self, name: str, window_start: float, amount: int) -> None:
        """Hold again what `idle` let go and nobody took."""
        account = self._accounts[name]
        if account.window_start == window_start:
            account.held += amount
            if account.total is not None:
                account.total += amount

    def _account(self, budget: Budget, now: float) -> _Account:
        account = self._accounts.get(budget.account)
        if account is not None and account.window == budget.window and now < account.window_end:
            return self._known(budget, account)
        start, end = window(budget.window, now)
        epoch = self._purse.lease_epoch
        if account is None or account.window == budget.window:
            made = _Account(budget.window, start, end, epoch, since=start)
        else:  # counted differently from now on: what is under way goes along
            made = _Account(budget.window, start, end, epoch, reserved=account.reserved)
            self._owe(budget.account, made, account.reserved)
            made.held = account.reserved
        self._accounts[budget.account] = made
        if budget.has_shares:
            self._purse.lease(budget.account, start, None, 0, 0)  # opens it: what was charged counts
        self._look(budget, made)
        return made

    def _known(self, budget: Budget, account: _Account) -> _Account:
        if account.epoch != self._purse.lease_epoch:  # our leases were settled by the ledger meanwhile
            account.held, account.epoch = 0, self._purse.lease_epoch
            self._look(budget, account)
        return account

    def _book(self, name: str, account: _Account, charged: int) -> None:
        account.held -= charged
        if account.held < 0:  # costlier than expected: it is owed all the same
            self._owe(name, account, -account.held)

    def _owe(self, name: str, account: _Account, amount: int) -> None:
        self._purse.lease(name, account.window_start, None, amount, amount)
        account.held = max(0, account.held)
        if account.total is not None:
            account.total += amount

    def _look(self, budget: Budget, account: _Account) -> None:
        if budget.has_shares:
            account.total = self._purse.leased(budget.account, account.window_start)
