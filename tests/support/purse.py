"""Leases in memory: the twin of the store's."""

from __future__ import annotations

from collections import Counter

Row = tuple[str, float]
"""An account and the beginning of its window."""


class MemoryPurse:
    """One process's view of what all of them have taken, by account and window."""

    def __init__(self, spent: int = 0) -> None:
        """Begin with `spent` pico-USD charged in every window."""
        self.lease_epoch = 1
        self.heard = True
        """Whether others have heard of this process lately."""
        self.away: set[str] = set()
        """Accounts whose rows cannot be reached."""
        self.ledger: Counter[Row] = Counter()
        """What this process has charged."""
        self._spent = spent
        self._own: Counter[Row] = Counter()
        self._all = [self._own]

    def sibling(self) -> MemoryPurse:
        """Return another process's view."""
        made = MemoryPurse(self._spent)
        made._all = self._all
        made._all.append(made._own)
        return made

    @property
    def taken(self) -> dict[Row, int]:
        rows = {row for own in self._all for row in own}
        return {row: self._spent + sum(own[row] for own in self._all) for row in rows}

    def leases_valid(self, epoch: int) -> bool:
        return self.heard and epoch == self.lease_epoch

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        self._reach(account)
        row = account, window_start
        if limit is not None:
            left = limit - self.leased(account, window_start)
            if left < at_least or left <= 0:
                return 0
            wanted = min(wanted, left)
        self._own[row] += wanted
        return wanted

    def leased(self, account: str, window_start: float) -> int:
        self._reach(account)
        return self.taken.get((account, window_start), self._spent)

    def give_back(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        self._reach(account)
        if epoch == self.lease_epoch:
            self._own[account, window_start] -= amount

    def pay(self, account: str, window_start: float, amount: int, epoch: int) -> None:
        self._reach(account)
        if epoch == self.lease_epoch:
            self._own[account, window_start] += amount

    def settle(self, account: str, window_start: float) -> None:
        self._reach(account)
        self._own[account, window_start] = self.ledger[account, window_start]

    def die(self) -> None:
        """Be taken for dead and come back: what was leased became what is charged."""
        self.lease_epoch += 1
        for row in self._own:
            self._own[row] = self.ledger[row]

    def _reach(self, account: str) -> None:
        if account in self.away:
            raise OSError("the database is away")
