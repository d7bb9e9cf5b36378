"""Reads numbers that several actions take."""

from __future__ import annotations

import argparse


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
