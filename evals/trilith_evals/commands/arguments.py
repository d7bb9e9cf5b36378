"""Reads numbers that several actions take."""

from __future__ import annotations

import argparse
from decimal import Decimal, InvalidOperation


def share(text: str) -> float:
    """Read a number from 0 to below 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to below 1")
    return value


def chance(text: str) -> float:
    """Read a number above 0 and below 1."""
    value = share(text)
    if not value:
        raise argparse.ArgumentTypeError("0 is not a number above 0 and below 1")
    return value


def usd(text: str) -> int:
    """Read US dollars above 0, as pico-USD (10^-12 USD)."""
    from trilith.money import PICO_PER_USD

    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not an amount of US dollars above 0")
    return int(value * PICO_PER_USD)
