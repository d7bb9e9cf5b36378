"""Random bytes for ids, and the ids of requests."""

from __future__ import annotations

import os

_BYTES = 7
_AT_ONCE = 512
_random = bytearray()
"""Bytes from the system that are not used yet: asking for each id alone would cost a system call each."""
_tails: list[str] = []
"""The random parts of ids to come."""


def new_id(now_ns: int) -> str:
    """Return a request's id: 11 hexadecimal digits of time (milliseconds), then 56 random bits.

    So ids are in order of time, which is also the cheapest order to store them in.
    """
    if not _tails:
        fresh = os.urandom(_AT_ONCE * _BYTES).hex()
        _tails.extend(fresh[at : at + 2 * _BYTES] for at in range(0, len(fresh), 2 * _BYTES))
    return f"req_{now_ns // 1_000_000:011x}{_tails.pop()}"


def random_bytes(count: int) -> bytes:
    """Return random bytes from the system, fit for identifiers."""
    if len(_random) < count:
        _random.extend(os.urandom(4096))
    part = bytes(_random[-count:])
    del _random[-count:]
    return part


def _forget() -> None:
    """Let a forked process have random bytes of its own."""
    _random.clear()
    _tails.clear()


os.register_at_fork(after_in_child=_forget)
