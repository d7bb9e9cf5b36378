"""Leases in memory: the twin of the store's."""

from __future__ import annotations


class MemoryPurse:
    """What all processes have taken, by account and window."""

    def __init__(self, spent: int = 0) -> None:
        """Begin with `spent` pico-USD charged in every window."""
        self.taken: dict[tuple[str, float], int] = {}
        self.lease_epoch = 1
        self.heard = True
        """Whether others have heard of this process lately."""
        self._spent = spent

    def leases_valid(self, epoch: int) -> bool:
        return self.heard and epoch == self.lease_epoch

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        at = account, window_start
        taken = self.taken.setdefault(at, self._spent)
        if limit is not None:
            left = limit - taken
            if left < at_least or left <= 0:
                return 0
            wanted = min(wanted, left)
        self.taken[at] += wanted
        return wanted

    def leased(self, account: str, window_start: float) -> int:
        return self.taken.get((account, window_start), 0)

    def give_back(self, account: str, window_start: float, amount: int) -> None:
        self.taken[account, window_start] -= amount
