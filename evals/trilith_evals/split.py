"""Splits: which part of a dataset a case belongs to, the same for ever, whatever rows are added.

A case's place is a hash of its cluster (of its id where it has none), so that cases of one document or one
conversation never stand on both sides, and no file has to remember who went where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from trilith.errors import DataError
from trilith_evals.case import Case


@dataclass(frozen=True, slots=True)
class Split:
    """One named part."""

    name: str
    share: float = 0.0
    """Of all clusters, from 0 to 1; not used with `column`."""
    start: float = 0.0
    """Where its share begins, from 0 to 1: parts that do not overlap have no case in common."""
    seed: int = 0
    """Parts with different seeds are independent draws."""
    column: str | None = None
    """The part is where this column holds `name`; None: by hash."""

    def holds(self, case: Case, key: str) -> bool:
        """Say whether the case is in this part; `key` is what its place is made from."""
        if self.column is not None:
            if self.column not in case.fields:
                raise DataError(f"split {self.name!r}: no column {self.column!r} to split by")
            return str(case.fields[self.column]) == self.name
        return self.start <= place(key, self.seed) < self.start + self.share


def place(key: str, seed: int) -> float:
    """Return a number from 0 to 1 (not included) that is the same for a key and a seed for ever."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:6]) / 2**48


def parts(shares: Mapping[str, float], seed: int = 0) -> dict[str, Split]:
    """Return the parts that follow one another from 0: no two have a case in common.

    Raises:
        ValueError: the shares come to more than one.
    """
    made, start = {}, 0.0
    for name, share in shares.items():
        made[name] = Split(name, share, start, seed)
        start = round(start + share, 12)
    if start > 1:
        raise ValueError(f"the shares come to {start:g}, expected at most 1")
    return made
