"""Exact money: integer pico-USD (10^-12 US dollars), prices, and what a usage costs.

No float ever enters. A price is quoted in decimal dollars and must come to a whole number of
pico-USD per unit, so a sum of charges is exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from trilith.types import Usage

PICO_PER_USD = 10**12


def pico_usd(usd: Decimal | str | int, *, per: int = 1, what: str = "amount") -> int:
    """Convert decimal US dollars per `per` units into integer pico-USD per unit.

    Raises:
        ValueError: the amount is negative, not finite, or not a whole number of pico-USD per unit.
    """
    value = Decimal(str(usd))
    if not value.is_finite() or value < 0:
        raise ValueError(f"{what} is {usd!r}, expected a decimal number of US dollars >= 0")
    scaled = value * PICO_PER_USD / per
    if scaled != scaled.to_integral_value():
        raise ValueError(
            f"{what} {usd} USD per {per:,} units is {scaled} pico-USD each, "
            f"expected a whole number: use at most {_decimals(per)} decimals"
        )
    return int(scaled)


def _decimals(per: int) -> int:
    return 12 - (len(str(per)) - 1)


def format_usd(pico: int) -> str:
    """Write pico-USD as dollars with every significant digit, at least two decimals."""
    whole, rest = divmod(abs(pico), PICO_PER_USD)
    return f"{'-' if pico < 0 else ''}{whole}.{f'{rest:012}'.rstrip('0'):0<2}"


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit costs, in pico-USD."""

    input_token: int = 0
    output_token: int = 0
    cached_input_token: int | None = None
    """None: cached tokens cost as much as the others."""
    row: int = 0
    request: int = 0
    image: int = 0
    second: int = 0
    """Of audio heard."""
    character: int = 0
    """Spoken."""


def cost(usage: Usage, price: Price) -> int:
    """Price one call.

    Cached input tokens are part of `input_tokens` (OpenAI's counting) and cost `cached_input_token`
    where the price names one; reasoning tokens are part of `output_tokens`.

    Returns:
        Integer pico-USD, exact.
    """
    cached_rate = price.input_token if price.cached_input_token is None else price.cached_input_token
    fresh = usage.input_tokens - usage.cached_input_tokens
    return (
        fresh * price.input_token
        + usage.cached_input_tokens * cached_rate
        + usage.output_tokens * price.output_token
        + usage.rows * price.row
        + usage.requests * price.request
        + usage.images * price.image
        + usage.seconds * price.second
        + usage.characters * price.character
    )
