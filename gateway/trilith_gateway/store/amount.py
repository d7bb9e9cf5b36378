"""Money in columns: what one holds at most, and sums that may be more than that."""

from __future__ import annotations

from typing import Any

MOST = 2**63 - 1
"""The most that a column holds: pico-USD for 9.2 million USD."""
_UNIT = 1_000_000


def total(column: str) -> str:
    """Return the SQL for the sum of a column of pico-USD; `read` makes one number of its two parts.

    The sum itself may leave 64 bits, and SQLite refuses it then. Both databases cut a quotient towards zero.
    """
    high = f"coalesce(sum({column} / {_UNIT}), 0) as {column}_high"
    return f"{high}, coalesce(sum({column} % {_UNIT}), 0) as {column}_low"


def read(row: Any, column: str = "amount_pico_usd") -> int:
    """Return the sum that `total` asked for, from a row that is read by name."""
    return int(row[f"{column}_high"]) * _UNIT + int(row[f"{column}_low"])


def capped(amount: int) -> int:
    """Return what a column can hold of an amount; more than all that could be spent is as much as that."""
    return min(MOST, amount)
