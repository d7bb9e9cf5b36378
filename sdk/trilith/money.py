"""Exact money: integer pico-USD (10^-12 US dollars), prices, and what a usage costs.

No float ever enters. A price is quoted in decimal dollars and must come to a whole number of
pico-USD per unit, so a sum of charges is exact in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

from trilith.types import NO_PARTICULARS, Particulars, Usage

PICO_PER_USD = 10**12
NS_PER_HOUR = 3_600_000_000_000


class UnpricedUsage(ValueError):
    """A price does not say what a part of a usage costs; the amount is unknown, not zero."""

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__(f"the price does not say what these cost: {', '.join(kinds)}")
        self.kinds = tuple(kinds)


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
    if not 0 <= pico < PICO_PER_USD:
        whole, rest = divmod(abs(pico), PICO_PER_USD)
        return f"{'-' if pico < 0 else ''}{whole}.{f'{rest:012}'.rstrip('0'):0<2}"
    digits = f"{pico:012}".rstrip("0")
    return f"0.{digits:0<2}"


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a whole number in proportion to `weights`; the parts add up to it (largest remainder)."""
    weight = sum(weights)
    if not weight:
        return [0] * len(weights)
    parts = [total * one // weight for one in weights]
    by_remainder = sorted(range(len(weights)), key=lambda at: -(total * weights[at] % weight))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit costs, in pico-USD. None: as much as the units of which these are a part."""

    input_token: int = 0
    output_token: int = 0
    cached_input_token: int | None = None
    row: int = 0
    request: int = 0
    image: int = 0
    second: int = 0
    """Of audio heard."""
    character: int = 0
    """Spoken."""
    cache_write_token: int | None = None
    cache_write_1h_token: int | None = None
    """None: as those that are kept for minutes."""
    reasoning_token: int | None = None
    audio_input_token: int | None = None
    audio_output_token: int | None = None
    image_input_token: int | None = None
    image_output_token: int | None = None
    search: int | None = None
    """None: unknown, since a search is part of nothing else."""
    cpu_hour: int = 0
    """Per hour of CPU time."""
    tiers: Mapping[str, Price] = field(default_factory=dict)
    """Prices of other service tiers than the standard one, by name."""
    steps: tuple[tuple[int, Price], ...] = ()
    """Prices that hold instead for calls with more input tokens than the number beside them, rising."""
    unknown: tuple[str, ...] = ()
    """Parts of a usage (`audio_input_tokens`, ...) that cost something which nobody here knows."""
    source: str = ""
    """Where it was taken from; empty for the settings."""

    def at(self, usage: Usage) -> Price:
        """Return the price sheet that holds for a usage: that of its tier, and of its size.

        Raises:
            UnpricedUsage: its tier is not on the sheet.
        """
        sheet, tier = self, usage.particulars.tier
        if tier:
            if tier not in self.tiers:
                raise UnpricedUsage([f"the tier {tier}"])
            sheet = self.tiers[tier]
        for above, other in reversed(sheet.steps):
            if usage.input_tokens > above:
                return other
        return sheet

    def dearest(self) -> Price:
        """Return a price that no usage costs more at: of all sheets, the highest rates."""
        sheets = [self]
        for sheet in sheets:  # grows while it is walked
            sheets += (*sheet.tiers.values(), *(step for _, step in sheet.steps))
        return Price(
            input_token=max(max(map(sheet.rate, _INPUTS)) for sheet in sheets),
            output_token=max(max(map(sheet.rate, _OUTPUTS)) for sheet in sheets),
            row=max(sheet.row for sheet in sheets),
            request=max(sheet.request for sheet in sheets),
            search=max((sheet.search or 0 for sheet in sheets), default=0) or None,
            cpu_hour=max(sheet.cpu_hour for sheet in sheets),
            image=max(sheet.image for sheet in sheets),
            second=max(sheet.second for sheet in sheets),
            character=max(sheet.character for sheet in sheets),
        )

    def with_rates(self, rates: Mapping[str, int | None]) -> Price:
        """Return the price with some rates replaced on all its sheets; what was unknown of them is known."""
        if not rates:
            return self
        known = {_UNITS[name] for name, rate in rates.items() if rate is not None}
        return replace(
            self,
            **cast(dict[str, Any], rates),
            tiers={name: sheet.with_rates(rates) for name, sheet in self.tiers.items()},
            steps=tuple((above, sheet.with_rates(rates)) for above, sheet in self.steps),
            unknown=tuple(kind for kind in self.unknown if kind not in known),
        )

    def times(self, factor: Decimal) -> Price:
        """Return the price with every rate multiplied, in every tier and at every size.

        Raises:
            ValueError: a rate is no whole number of pico-USD then.
        """
        rates = {name: getattr(self, name) for name in _UNITS}
        scaled = {name: rate * factor for name, rate in rates.items() if rate is not None}
        for name, rate in scaled.items():
            if rate < 0 or rate != rate.to_integral_value():
                raise ValueError(
                    f"{factor} times the rate of {name} is {rate} pico-USD, expected a whole number"
                )
        steps = tuple((above, sheet.times(factor)) for above, sheet in self.steps)
        tiers = {name: sheet.times(factor) for name, sheet in self.tiers.items()}
        exact: dict[str, Any] = {name: int(rate) for name, rate in scaled.items()}
        return replace(self, **exact, tiers=tiers, steps=steps)

    def rate(self, name: str) -> int:
        """Return one of the rates; 0 where it is not named."""
        return getattr(self, name) or 0


def cost(usage: Usage, price: Price) -> int:
    """Price one call.

    Tokens read from a cache, written to one, spoken or seen are part of `input_tokens` (OpenAI's counting)
    and never billed twice: each costs its own rate where the price names one, and that of the others where
    it does not. The same holds for reasoning and speech within `output_tokens`. A fraction of a pico-USD of
    CPU time is dropped; `Meter` carries it on.

    Returns:
        Integer pico-USD, exact.

    Raises:
        UnpricedUsage: the price does not say what a part of it costs.
    """
    particulars = usage.particulars
    if particulars.tier or price.steps:
        price = price.at(usage)
    rate = price.input_token
    cached = price.cached_input_token
    amount = (
        (usage.input_tokens - usage.cached_input_tokens) * rate
        + usage.cached_input_tokens * (rate if cached is None else cached)
        + usage.output_tokens * price.output_token
        + usage.rows * price.row
        + usage.requests * price.request
        + usage.images * price.image
        + usage.seconds * price.second
        + usage.characters * price.character
    )
    if price.unknown:
        _refuse(kind for kind in price.unknown if _count(usage, kind))
    if usage.reasoning_tokens and price.reasoning_token is not None:
        amount += usage.reasoning_tokens * (price.reasoning_token - price.output_token)
    if particulars is not NO_PARTICULARS:
        amount += _particular(particulars, price)
    if not amount and (usage.images or usage.seconds or usage.characters) and _counts_tokens(usage, price):
        _refuse(name for name in ("images", "seconds", "characters") if getattr(usage, name))
    return amount


def _counts_tokens(usage: Usage, price: Price) -> bool:
    """Say whether a price is by tokens of which the usage says nothing: what was made is not free then."""
    return not (usage.input_tokens or usage.output_tokens) and bool(price.input_token or price.output_token)


def _particular(used: Particulars, price: Price) -> int:
    """Return what the rarer units cost beyond the rate of those of which they are a part."""
    if used.searches and price.search is None:
        raise UnpricedUsage(["searches"])
    write = price.cache_write_token
    hour = price.cache_write_1h_token
    parts = (
        (used.cache_write_tokens, write, price.input_token),
        (used.cache_write_1h_tokens, write if hour is None else hour, price.input_token),
        (used.audio_input_tokens, price.audio_input_token, price.input_token),
        (used.image_input_tokens, price.image_input_token, price.input_token),
        (used.audio_output_tokens, price.audio_output_token, price.output_token),
        (used.image_output_tokens, price.image_output_token, price.output_token),
        (used.searches, price.search, 0),
    )
    extra = sum(count * (own - rate) for count, own, rate in parts if own is not None)
    return extra + used.cpu_ns * price.cpu_hour // NS_PER_HOUR


def _count(usage: Usage, kind: str) -> int:
    if kind.startswith("cached_") and kind != "cached_input_tokens":  # a part of two others
        part = kind.replace("cached_", "").replace("_tokens", "_input_tokens")
        return min(usage.cached_input_tokens, _count(usage, part))
    count: int = getattr(usage.particulars if kind in Particulars.__slots__ else usage, kind)
    return count


def _refuse(kinds: Iterable[str]) -> None:
    if found := sorted(kinds):
        raise UnpricedUsage(found)


_INPUTS = (
    "input_token",
    "cached_input_token",
    "cache_write_token",
    "cache_write_1h_token",
    "audio_input_token",
    "image_input_token",
)
_UNITS = {
    "input_token": "input_tokens",
    "output_token": "output_tokens",
    "cached_input_token": "cached_input_tokens",
    "row": "rows",
    "request": "requests",
    "cache_write_token": "cache_write_tokens",
    "cache_write_1h_token": "cache_write_1h_tokens",
    "reasoning_token": "reasoning_tokens",
    "audio_input_token": "audio_input_tokens",
    "audio_output_token": "audio_output_tokens",
    "image_input_token": "image_input_tokens",
    "image_output_token": "image_output_tokens",
    "search": "searches",
    "cpu_hour": "cpu_ns",
    "image": "images",
    "second": "seconds",
    "character": "characters",
}
"""Every rate, and the part of a usage that it prices."""
_OUTPUTS = ("output_token", "reasoning_token", "audio_output_token", "image_output_token")


class Meter:
    """Turns measured time into charges that add up: what one leaves over, the next one pays."""

    def __init__(self) -> None:
        self._rest = 0

    def charge(self, ns: int, per_hour: int) -> int:
        """Return whole pico-USD for `ns` nanoseconds at `per_hour` pico-USD.

        The sum over any number of calls is the price of the sum of their times, rounded down once.
        """
        whole, self._rest = divmod(ns * per_hour + self._rest, NS_PER_HOUR)
        return whole
