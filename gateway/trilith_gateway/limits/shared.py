"""Limits that the processes of one machine keep together, in memory that they share.

The file has a record for each account: its name's hash, when its requests and its tokens are paid off, and
for each process how many requests it has under way. A process owns one column of those counts for as long as
it holds a file lock, which the kernel frees at its death. A count is worth something only with the column's
present generation, so what a dead process left behind is undone by raising one number.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from trilith_gateway.limits.seam import BURST_S, Allowance, Maybe, crowded, pace, tightest
from trilith_gateway.terms import Rates

_PROCESSES = 64
_ACCOUNTS = 1 << 15
_GENERATIONS = struct.Struct(f"={_PROCESSES}H")
_BOOT_AT = _GENERATIONS.size
_BOOT_BYTES = 16
_HEAD_BYTES = _BOOT_AT + _BOOT_BYTES
"""The columns' generations, and which run of the machine the clock of all else belongs to."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_DUE = struct.Struct("=8sdd")
"""An account's fingerprint; when its requests and its tokens are paid off (the machine's monotonic clock)."""
_REQUESTS, _TOKENS = 8, 16
_COUNTS = struct.Struct(f"={_PROCESSES * 2}H")
_PAIR = struct.Struct("=2H")
"""A column's generation, and how many requests its process has under way."""
_RECORD_BYTES = _DUE.size + _COUNTS.size
_FLOAT = struct.Struct("=d")
_EMPTY = b"\0" * 8


class SharedRateLimiter:
    """The numbers of `memory`, for all processes of one machine."""

    def __init__(self, folder: Path) -> None:
        """Open the file, or make it. It does not outlive the machine's run: its clock does not either."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        size = _HEAD_BYTES + _ACCOUNTS * _RECORD_BYTES
        self._fd = os.open(folder / "table", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._begin(size)
        self._memory = mmap.mmap(self._fd, size)
        self._places: dict[str, int] = {}
        self._lock = threading.Lock()  # file locks do not keep threads of one process apart
        self._column, self._claim = self._own_column()

    def _begin(self, size: int) -> None:
        """Empty a file that another run of the machine left: its times lie in a future that never comes."""
        boot = _boot()
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        try:
            if os.pread(self._fd, _BOOT_BYTES, _BOOT_AT) != boot:
                os.ftruncate(self._fd, 0)
                os.ftruncate(self._fd, size)  # sparse: only what is used takes room
                os.pwrite(self._fd, boot, _BOOT_AT)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def request(self, rates: Sequence[Rates], now: float) -> Maybe:
        """Count one request at every account, or at none."""
        limits = [(limit.requests_per_minute, limit.account) for limit in rates if limit.requests_per_minute]
        places = [self._place(account) for _, account in limits]
        with self._locked(places):
            dues: list[float] = []
            found: list[Allowance] = []
            for place, (rate, account) in zip(places, limits, strict=True):
                due, allowance = pace(self._due(place + _REQUESTS), 1, rate, now, account, "requests")
                dues.append(due)
                found.append(allowance)
            if all(allowance.allowed for allowance in found):
                for place, due in zip(places, dues, strict=True):
                    _FLOAT.pack_into(self._memory, place + _REQUESTS, due)
        return tightest(found)

    def work(self, rates: Sequence[Rates], id: str, tokens: int, now: float) -> Maybe:
        """Take a place and `tokens` at every account, or nothing at any."""
        limits = [limit for limit in rates if limit.max_concurrency or limit.tokens_per_minute]
        places = [self._place(limit.account) for limit in limits]
        with self._locked(places):
            dues: list[float | None] = []
            found: list[Allowance] = []
            for place, limit in zip(places, limits, strict=True):
                if limit.max_concurrency and self._full(place, limit.max_concurrency):
                    found.append(crowded(limit))
                due = None
                if (rate := limit.tokens_per_minute) is not None:
                    before = self._due(place + _TOKENS)
                    due, allowance = pace(before, tokens, rate, now, limit.account, "tokens")
                    found.append(allowance)
                dues.append(due)
            if all(allowance.allowed for allowance in found):
                for place, limit, due in zip(places, limits, dues, strict=True):
                    if due is not None:
                        _FLOAT.pack_into(self._memory, place + _TOKENS, due)
                    if limit.max_concurrency:
                        self._count(place, +1)
        return tightest(found)

    def settle(self, rates: Sequence[Rates], id: str, taken: int, used: int, now: float) -> None:
        """Give the place back, and count `used` tokens instead of those `taken`."""
        limits = [limit for limit in rates if limit.max_concurrency or limit.tokens_per_minute]
        places = [self._place(limit.account) for limit in limits]
        with self._locked(places):
            for place, limit in zip(places, limits, strict=True):
                if limit.max_concurrency:
                    self._count(place, -1)
                if (rate := limit.tokens_per_minute) is not None:
                    due = max(self._due(place + _TOKENS), now) + (used - taken) * BURST_S / rate
                    _FLOAT.pack_into(self._memory, place + _TOKENS, due)

    async def renew(self) -> None:
        """Nothing to do: places end with the process."""

    async def aclose(self) -> None:
        """Release the files."""
        self.close()

    def close(self) -> None:
        """Release the files; what this process has under way counts no more."""
        self._memory.close()
        os.close(self._fd)
        os.close(self._claim)

    def _due(self, at: int) -> float:
        return float(_FLOAT.unpack_from(self._memory, at)[0])

    def _full(self, place: int, most: int) -> bool:
        counts = self._counts(place)
        if sum(counts.values()) < most:
            return False
        dead = [column for column in counts if column != self._column and self._bury(column)]
        return sum(count for column, count in counts.items() if column not in dead) >= most

    def _counts(self, place: int) -> dict[int, int]:
        """Return how many requests each process has under way, those that have none left out."""
        numbers = _COUNTS.unpack_from(self._memory, place + _DUE.size)
        generations = _GENERATIONS.unpack_from(self._memory, 0)
        return {
            column: numbers[2 * column + 1]
            for column in range(_PROCESSES)
            if numbers[2 * column + 1] and numbers[2 * column] == generations[column]
        }

    def _count(self, place: int, change: int) -> None:
        at = place + _DUE.size + self._column * _PAIR.size
        generation, count = _PAIR.unpack_from(self._memory, at)
        present = _GENERATIONS.unpack_from(self._memory, 0)[self._column]
        _PAIR.pack_into(self._memory, at, present, max(0, change + (count if generation == present else 0)))

    def _own_column(self) -> tuple[int, int]:
        for column in range(_PROCESSES):
            if (claim := self._claimed(column)) is not None:
                self._raise_generation(column)
                return column, claim
        raise OSError(f"more than {_PROCESSES} processes of this machine share rate limits in {self._folder}")

    def _bury(self, column: int) -> bool:
        """Undo what a process left, if it is dead."""
        claim = self._claimed(column)
        if claim is None:
            return False
        self._raise_generation(column)
        os.close(claim)
        return True

    def _claimed(self, column: int) -> int | None:
        """Lock a column; None when its process lives."""
        claim = os.open(self._folder / f"{column}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(claim)
            return None
        return claim

    def _raise_generation(self, column: int) -> None:
        # Whoever does this holds the column's lock, so nobody else writes this number.
        present = _GENERATIONS.unpack_from(self._memory, 0)[column]
        struct.pack_into("=H", self._memory, column * 2, (present + 1) & 0xFFFF)

    @contextlib.contextmanager
    def _locked(self, places: Sequence[int]) -> Iterator[None]:
        """Keep others from some records; always in one order, so that nobody waits in a circle."""
        with self._lock:
            locked = sorted(set(places))
            try:
                for place in locked:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX, _RECORD_BYTES, place)
                yield
            finally:
                for place in locked:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, _RECORD_BYTES, place)

    def _place(self, account: str) -> int:
        place = self._places.get(account)
        if place is None:
            place = self._places[account] = self._find(account)
        return place

    def _find(self, account: str) -> int:
        """Return where an account's record is, and take one for a new account."""
        name = hashlib.sha256(account.encode()).digest()[:8]
        first = int.from_bytes(name) % _ACCOUNTS
        with self._lock:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)
            try:
                for step in range(_ACCOUNTS):
                    place = _HEAD_BYTES + (first + step) % _ACCOUNTS * _RECORD_BYTES
                    found = _DUE.unpack_from(self._memory, place)[0]
                    if found == _EMPTY:
                        _DUE.pack_into(self._memory, place, name, 0.0, 0.0)
                    if found in (_EMPTY, name):
                        return place
            finally:
                fcntl.lockf(self._fd, fcntl.LOCK_UN)
        raise OSError(f"more than {_ACCOUNTS:,} accounts have rate limits; start the gateway anew")


def _boot() -> bytes:
    """Return what differs from one run of the machine to the next; the same for all where it is not told."""
    try:
        told = _BOOT.read_bytes()
    except OSError:
        told = b""
    return hashlib.sha256(told).digest()[:_BOOT_BYTES]
