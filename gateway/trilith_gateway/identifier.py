"""Random bytes for ids, and the ids of requests."""

from __future__ import annotations

import os

_AT_ONCE = 4096
_random = bytearray()
"""Bytes from the system that are not used yet: asking for each id alone would cost a system call each."""


def new_id(now_ns: int) -> str:
    """Return a request's id: 11 hexadecimal digits of time (milliseconds), then 56 random bits.

    So ids are in order of time, which is also the cheapest order to store them in.
    """
    return f"req_{now_ns // 1_000_000:011x}{random_bytes(7).hex()}"


def random_bytes(count: int) -> bytes:
    """Return random bytes from the system, fit for identifiers."""
    if len(_random) < count:
        _random.extend(os.urandom(_AT_ONCE))
    part = bytes(_random[-count:])
    del _random[-count:]
    return part


# A forked process has random bytes of its own.
os.register_at_fork(after_in_child=_random.clear)
