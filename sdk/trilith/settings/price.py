"""Settings of a price, and the exact price that they come to."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator

from trilith.errors import TrilithError
from trilith.money import Price, pico_usd
from trilith.settings.section import Section

_MTOK = 1_000_000
_KROW = 1_000
_PER = {
    "input_usd_per_mtok": _MTOK,
    "output_usd_per_mtok": _MTOK,
    "cached_input_usd_per_mtok": _MTOK,
    "cache_write_usd_per_mtok": _MTOK,
    "cache_write_1h_usd_per_mtok": _MTOK,
    "reasoning_usd_per_mtok": _MTOK,
    "audio_input_usd_per_mtok": _MTOK,
    "audio_output_usd_per_mtok": _MTOK,
    "image_input_usd_per_mtok": _MTOK,
    "usd_per_krow": _KROW,
    "usd_per_mchar": _MTOK,
}
_RATES = {
    "input_usd_per_mtok": "input_token",
    "output_usd_per_mtok": "output_token",
    "cached_input_usd_per_mtok": "cached_input_token",
    "cache_write_usd_per_mtok": "cache_write_token",
    "cache_write_1h_usd_per_mtok": "cache_write_1h_token",
    "reasoning_usd_per_mtok": "reasoning_token",
    "audio_input_usd_per_mtok": "audio_input_token",
    "audio_output_usd_per_mtok": "audio_output_token",
    "image_input_usd_per_mtok": "image_input_token",
    "usd_per_krow": "row",
    "usd_per_request": "request",
    "usd_per_image": "image",
    "usd_per_audio_s": "second",
    "usd_per_mchar": "character",
    "usd_per_search": "search",
    "usd_per_cpu_hour": "cpu_hour",
}
"""Settings of a price, and the rates of `Price` that they are."""


class PriceSettings(Section):
    """What a call costs, in decimal US dollars. At most 6 decimals per Mtok, 9 per krow, 12 otherwise."""

    book: str | None = None
    """Take this model's price from the price book, as `provider/model` (`trilith prices list`). Rates given
    beside it replace the book's, in every tier and at every size."""
    input_usd_per_mtok: Decimal = Decimal(0)
    """Per million input tokens."""
    output_usd_per_mtok: Decimal = Decimal(0)
    """Per million output tokens, reasoning included."""
    cached_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens that were served from a prefix cache; without it they cost as the others."""
    cache_write_usd_per_mtok: Decimal | None = None
    """Per million input tokens that were written to a prefix cache; without it they cost as the others."""
    cache_write_1h_usd_per_mtok: Decimal | None = None
    """Per million of those that are kept there for an hour; without it they cost as those that are not."""
    reasoning_usd_per_mtok: Decimal | None = None
    """Per million reasoning tokens; without it they cost as other output."""
    audio_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens of sound; without it they cost as the others."""
    audio_output_usd_per_mtok: Decimal | None = None
    """Per million output tokens of sound; without it they cost as the others."""
    image_input_usd_per_mtok: Decimal | None = None
    """Per million input tokens of images; without it they cost as the others."""
    usd_per_krow: Decimal = Decimal(0)
    """Per thousand rows scored."""
    usd_per_request: Decimal = Decimal(0)
    """Per request that was answered."""
    usd_per_image: Decimal = Decimal(0)
    """Per image made."""
    usd_per_audio_s: Decimal = Decimal(0)
    """Per second of audio that was heard (transcribed or translated), begun ones counted."""
    usd_per_mchar: Decimal = Decimal(0)
    """Per million characters that were spoken."""
    usd_per_search: Decimal | None = None
    """Per search of the web that the provider reports; without it a call with searches is unpriced."""
    usd_per_cpu_hour: Decimal = Decimal(0)
    """Per hour of CPU time that a predictor was measured to take, down to the nanosecond."""
    batch_factor: Decimal | None = None
    """By what every rate is multiplied for lines of batches, and for answers that name the service tier
    `batch`; `0.5` is half the price. Without it lines of batches cost as single calls. Answers in a tier
    with a price neither here nor in the book are unpriced."""
    flex_factor: Decimal | None = None
    """The same for the tier `flex`."""
    priority_factor: Decimal | None = None
    """The same for the tier `priority`."""

    @field_validator("*")
    @classmethod
    def _whole_pico(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, Decimal):
            return value
        per = _PER.get(info.field_name or "", 1)
        try:
            pico_usd(value or 0, per=per)
        except (ValueError, ArithmeticError):
            places = 12 - (len(str(per)) - 1)
            raise ValueError(f"expected a decimal number >= 0 with at most {places} decimals") from None
        return value

    @model_validator(mode="after")
    def _known(self) -> PriceSettings:
        try:
            self.for_batches()
        except TrilithError as error:
            raise ValueError(str(error)) from None
        return self

    def exact(self) -> Price:
        """Return the same price in integer pico-USD per unit.

        Raises:
            DataError: the price book does not have the model that is named.
            ValueError: a tier's rate is no whole number of pico-USD.
        """
        rates: dict[str, Any] = {}
        for name, rate in _RATES.items():
            value = getattr(self, name)
            if self.book is None or name in self.model_fields_set:
                per = _PER.get(name, 1)
                rates[rate] = None if value is None else pico_usd(value, per=per, what=name)
        if self.book is None:
            price = Price(**rates)
        else:
            from trilith.prices import load

            price = load().price(self.book).with_rates(rates)
        factors = {name: getattr(self, f"{name}_factor") for name in ("batch", "flex", "priority")}
        alone = replace(price, tiers={})
        tiers = {name: alone.times(factor) for name, factor in factors.items() if factor is not None}
        return replace(price, tiers={**price.tiers, **tiers}) if tiers else price

    def for_batches(self) -> Price:
        """Return what a line of a batch costs, in integer pico-USD per unit, whichever tier answers it."""
        price = self.exact()
        if self.batch_factor is None:
            return price
        own = price.tiers["batch"]
        others = {name: sheet for name, sheet in price.tiers.items() if name != "batch"}
        tiers = replace(price, tiers=others).times(self.batch_factor).tiers
        return replace(own, tiers={**tiers, "batch": own})
