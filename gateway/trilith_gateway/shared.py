"""Budgets that several processes keep together, without asking each other every time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from trilith_gateway.budget import Alert, exceeded, unheard, window
from trilith_gateway.key import Key
from trilith_gateway.terms import Budget, Window

_log = logging.getLogger(__name__)

_SHARE = 100
"""A worker takes at least one part in so many of a budget at a time, as long as there is enough."""


class Purse(Protocol):
    """Where money is leased; see `store.seam.Store`. Methods raise OSError while it cannot be reached."""

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

    def give_back(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Return what was taken and not spent, unless others have settled what was leased in that epoch."""
        ...

    def pay(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        """Take what is spent already, unless others have settled what was leased in that epoch."""
        ...

    def settle(self, account: str, window_start: float) -> None:
        """Make what this process has taken what it has charged, all that it has recorded included."""
        ...


class Part(NamedTuple):
    """A part of a lease on its way to the purse, or of what is owed to it."""

    account: str
    window_start: float
    amount: int
    """Pico-USD."""
    epoch: int


@dataclass(slots=True)
class _Account:
    window: Window
    window_start: float
    window_end: float
    epoch: int
    held: int = 0
    """Leased and not spent yet, reservations included (pico-USD); below zero: spent, and not leased yet."""
    reserved: int = 0
    unpriced: int = 0
    """What counts as spent, and no row of the ledger tells."""
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
            OSError: one of them cannot be asked; nothing is held then.
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
        self.hold(key, amount, now)

    def hold(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD whatever is left, because a call owes it already."""
        for budget in key.budgets:
            try:
                account = self._account(budget, now)
            except OSError:
                account = self._accounts[budget.account]
            account.reserved += amount
            account.idle = False

    def settle(self, key: Key, reserved: int, charged: int, at: float, *, unpriced: int = 0) -> None:
        """Give back what was `reserved` at the Unix time `at`, and book `charged`, both in pico-USD.

        The charge is recorded already. It is booked at every level, also where one cannot be reached.

        Args:
            key: Who calls.
            reserved: What was reserved for the call.
            charged: What it cost.
            at: When it was reserved.
            unpriced: The part of `charged` that no row of the ledger tells.
        """
        for budget in key.budgets:
            account = self._accounts.get(budget.account)
            if account is None or account.since > at:
                continue
            account.reserved = max(0, account.reserved - reserved)
            self._book(budget.account, account, charged, unpriced)
            if not account.told and budget.reaches(budget.soft_percent, account.spent):
                account.told = True
                self._alert(Alert(budget, account.window_start, account.spent))
        if len(key.budgets) < len(key.accounts):
            held = {budget.account for budget in key.budgets}
            for name in key.accounts:  # a budget may have been made while the call was under way
                late = self._accounts.get(name) if name not in held else None
                if late is not None and late.since <= at:
                    self._book(name, late, charged, unpriced)

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

    def idle(self) -> list[Part]:
        """Let go what has lain idle since the last time; the caller hands it to `Purse.give_back`."""
        found: list[Part] = []
        for name, account in self._accounts.items():
            free = account.held - account.reserved
            if account.idle and free > 0 and self._purse.leases_valid(account.epoch):
                _move(account, -free)
                found.append(Part(name, account.window_start, free, account.epoch))
            account.idle = True
        return found

    def debts(self) -> list[Part]:
        """Let go what is spent and could not be leased; the caller hands it to `Purse.pay`."""
        found: list[Part] = []
        for name, account in self._accounts.items():
            if account.held < 0 and account.epoch == self._purse.lease_epoch:
                found.append(Part(name, account.window_start, -account.held, account.epoch))
                _move(account, -account.held)
        return found

    def keep_idle(self, part: Part) -> None:
        """Hold again what `idle` let go and nobody took."""
        self._again(part, part.amount)

    def keep_debt(self, part: Part) -> None:
        """Owe again what `debts` let go and nobody took."""
        self._again(part, -part.amount)

    def _again(self, part: Part, amount: int) -> None:
        account = self._accounts[part.account]
        if (account.window_start, account.epoch) == (part.window_start, part.epoch):
            _move(account, amount)

    def _account(self, budget: Budget, now: float) -> _Account:
        account = self._accounts.get(budget.account)
        if account is None or account.window != budget.window or now >= account.window_end:
            account = self._open(budget, account, now)
        elif account.epoch != self._purse.lease_epoch:
            self._renew(budget, account)
        if budget.has_shares and account.total is None:
            self._purse.lease(budget.account, account.window_start, None, 0, 0)  # what was charged counts
            self._look(budget, account)
        return account

    def _open(self, budget: Budget, before: _Account | None, now: float) -> _Account:
        start, end = window(budget.window, now)
        made = _Account(budget.window, start, end, self._purse.lease_epoch, since=start)
        if before is None or before.window != budget.window:
            # It may have had another window until now, or no budget at all, in which nobody leased.
            self._purse.settle(budget.account, start)
        if before is not None and before.window != budget.window:  # what is under way goes along
            made.since, made.reserved = 0.0, before.reserved
            made.unpriced = before.unpriced if start <= before.window_start else 0
            carried = made.reserved + made.unpriced
            self._purse.lease(budget.account, start, None, carried, carried)
            made.held = made.reserved
        self._accounts[budget.account] = made
        return made

    def _renew(self, budget: Budget, account: _Account) -> None:
        """Begin again after others took this process for dead: the ledger says what is spent.

        Raises:
            OSError: it cannot be asked; the next use begins where this one stopped.
        """
        epoch = self._purse.lease_epoch
        self._purse.settle(budget.account, account.window_start)
        account.held, account.epoch, account.total = -account.unpriced, epoch, None
        self._pay(budget.account, account)
        # What is under way is covered again, as far as others have left anything.
        wanted = account.reserved - account.held
        if wanted > 0:
            account.held += self._purse.lease(
                budget.account, account.window_start, budget.pico_usd, 0, wanted
            )

    def _book(self, name: str, account: _Account, charged: int, unpriced: int) -> None:
        account.unpriced += unpriced
        if account.epoch != self._purse.lease_epoch:
            return  # the ledger has the charge, and is what counts when the account is used next
        account.held -= charged
        try:
            self._pay(name, account)
        except Exception as error:  # it stays owed
            if account.held + charged >= 0:
                _log.error("%s owes what cannot be leased at the moment: %s", name, error)

    def _pay(self, name: str, account: _Account) -> None:
        """Lease what is spent beyond what was leased: costlier than expected, it is owed all the same."""
        if (owed := -account.held) > 0:
            self._purse.lease(name, account.window_start, None, owed, owed)
            _move(account, owed)

    def _look(self, budget: Budget, account: _Account) -> None:
        shown = budget.has_shares
        account.total = self._purse.leased(budget.account, account.window_start) if shown else None


def _move(account: _Account, amount: int) -> None:
    account.held += amount
    if account.total is not None:
        account.total += amount
