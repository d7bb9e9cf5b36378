"""Reads numbers and names that several actions take."""

from __future__ import annotations

import argparse
import math
from decimal import Decimal, InvalidOperation


def size(text: str) -> float:
    """Read a difference in a metric's own unit, 0 or more."""
    value = float(text)
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def step(text: str) -> float:
    """Read a difference in a metric's own unit, above 0."""
    value = size(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def chance(text: str) -> float:
    """Read a number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0 and below 1")
    return value


def usd(text: str) -> int:
    """Read an amount of US dollars above 0, as pico-USD (10^-12 USD)."""
    from trilith.money import PICO_PER_USD

    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not (value.is_finite() and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not an amount of US dollars above 0")
    return int(value * PICO_PER_USD)


def named(text: str) -> str:
    """Read the name of a run: an empty one, as of an unset variable, would be taken for none at all."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the name is empty, expected that of a run, such as main")
    return text
