"""Budgets and rate limits that several processes keep together, without asking each other every time."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trilith.errors import BudgetExceededError
from trilith.money import format_usd
from trilith_gateway.budget import window
from trilith_gateway.key import Key
from trilith_gateway.limit import Allowance

_SHARE = 100
"""A worker takes at least one part in so many of a budget at a time, as long as there is enough."""


class Purse(Protocol):
    """Where money is leased; see `store.seam.Store`."""

    @property
    def lease_epoch(self) -> int:
        """Changes when this process was taken for dead, and its leases with it."""
        ...

    def lease(self, account: str, window_start: float, limit: int | None, at_least: int, wanted: int) -> int:
        """Take money, atomically over all processes; 0 when less than `at_least` is left."""
        ...

    def give_back(self, account: str, window_start: float, amount: int) -> None:
        """Return what was taken and not spent."""
        ...


@dataclass(slots=True)
class _Account:
    window_start: float
    window_end: float
    epoch: int
    held: int = 0
    """Leased and not spent yet, reservations included (pico-USD)."""
    reserved: int = 0
    idle: bool = False
    """Nothing was reserved since the last look."""


class LeasedBudgets:
    """Keeps budgets out of leases: the sum of what all processes hold and have spent never exceeds a budget.

    What one process holds another cannot spend; so leases are small parts, and idle ones are given back.
    """

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._accounts: dict[str, _Account] = {}

    def reserve(self, key: Key, amount: int, now: float) -> None:
        """Hold `amount` pico-USD of the key's budget.

        Raises:
            BudgetExceededError: less than that is left; nothing is held.
        """
        limit = key.budget_pico_usd
        if limit is None:
            return
        account = self._account(key, now)
        missing = amount - (account.held - account.reserved)
        if missing > 0:
            wanted = max(missing, limit // _SHARE)
            taken = self._purse.lease(f"key:{key.id}", account.window_start, limit, missing, wanted)
            if not taken:
                raise BudgetExceededError(
                    f"this call may cost up to {format_usd(amount)} USD, and less than that is left of the "
                    f"key's budget of {format_usd(limit)} USD per {key.budget_window}. "
                    "Lower max_tokens, raise the budget, or wait for the window",
                    status_code=429,
                    code="insufficient_quota",
                    type="insufficient_quota",
                    retry_after_s=None if account.window_end == float("inf") else account.window_end - now,
                )
            account.held += taken
        account.reserved += amount
        account.idle = False

    def settle(self, key: Key, reserved: int, charged: int, now: float) -> None:
        """Give back `reserved` and book `charged`, both in pico-USD."""
        if key.budget_pico_usd is None:
            return
        account = self._account(key, now)
        account.reserved = max(0, account.reserved - reserved)
        account.held -= charged
        if account.held < 0:  # costlier than expected, or begun in another window: it is owed all the same
            self._purse.lease(f"key:{key.id}", account.window_start, None, -account.held, -account.held)
            account.held = 0

    def idle(self) -> list[tuple[str, float, int]]:
        """Let go what has lain idle since the last time; the caller hands it to `Purse.give_back`."""
        found: list[tuple[str, float, int]] = []
        for id, account in self._accounts.items():
            free = account.held - account.reserved
            if account.idle and free > 0 and account.epoch == self._purse.lease_epoch:
                account.held -= free
                found.append((f"key:{id}", account.window_start, free))
            account.idle = True
        return found

    def _account(self, key: Key, now: float) -> _Account:
        account = self._accounts.get(key.id)
        if account is None or now >= account.window_end:
            start, end = window(key.budget_window, now)
            carried = account.reserved if account is not None else 0
            account = self._accounts[key.id] = _Account(start, end, self._purse.lease_epoch, reserved=carried)
        elif account.epoch != self._purse.lease_epoch:  # our leases were settled by the ledger meanwhile
            account.held, account.epoch = 0, self._purse.lease_epoch
        return account


_SLOT = struct.Struct("=8sd")
"""A key's fingerprint, and when its next request is due (seconds of the machine's monotonic clock)."""
_SLOTS = 1 << 16
_EMPTY = b"\0" * 8


class SharedRateLimiter:
    """GCRA as in `limit`, with its one number per key in memory that the processes of one machine share."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. It need not outlive the machine's run: its clock does not either."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, _SLOTS * _SLOT.size)
        self._memory = mmap.mmap(self._fd, _SLOTS * _SLOT.size)
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()  # file locks do not keep threads of one process apart

    def take(self, key: str, rate: int, now: float) -> Allowance:
        """Count one request of `key` against `rate` per minute at `now` (seconds, monotonic clock)."""
        interval = 60.0 / rate
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._find(key)
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX, _SLOT.size, place)
            try:
                name, due = _SLOT.unpack_from(self._memory, place)
                arrival = min(max(due, now), now + 60.0)  # a clock that began anew must not lock keys out
                wait = arrival + interval - now - 60.0
                if wait > 1e-9:
                    return Allowance(False, rate, 0, wait, arrival - now)
                _SLOT.pack_into(self._memory, place, name, arrival + interval)
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, _SLOT.size, place)
        used = arrival + interval - now
        return Allowance(True, rate, int((60.0 - used) / interval + 1e-9), 0.0, used)

    def _find(self, key: str) -> int:
        """Return where a key's number stands, and take a place for a new key."""
        name = hashlib.sha256(key.encode()).digest()[:8]
        first = int.from_bytes(name) % _SLOTS
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                for step in range(_SLOTS):
                    place = (first + step) % _SLOTS * _SLOT.size
                    found = _SLOT.unpack_from(self._memory, place)[0]
                    if found == _EMPTY:
                        _SLOT.pack_into(self._memory, place, name, 0.0)
                    if found in (_EMPTY, name):
                        return place
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
        raise OSError(f"more than {_SLOTS:,} keys have rate limits; start the gateway anew")

    def close(self) -> None:
        """Release the file."""
        self._memory.close()
        os.close(self._fd)
