"""Settings of servers of one's own: how one is started, and what its time costs."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from trilith.settings.section import Section


class EngineCostSettings(Section):
    """What an own server costs. Its time is booked by windows: the calls' charges, and the rest as idle."""

    usd_per_hour: Decimal = Field(ge=0)
    """Price of an hour of one replica, in US dollars, busy or not."""
    units_per_second: float | None = Field(None, gt=0)
    """Units of work that a replica does in a second when fully busy; `trilith costs fit` measures it. With
    it, models without a `price` are charged by work at the standard rate."""
    target_utilisation: Decimal = Field(Decimal("0.6"), gt=0, le=1)
    """How busy the server is meant to be; the standard rate covers its cost when it is."""
    input_weight: Decimal = Field(Decimal(1), ge=0)
    """Units of work of an input token that was computed."""
    cached_input_weight: Decimal = Field(Decimal("0.1"), ge=0)
    """Units of work of an input token that was served from the prefix cache."""
    output_weight: Decimal = Field(Decimal(4), ge=0)
    """Units of work of an output token."""
    window_s: int = Field(300, ge=10, le=86400)
    """Length of a window (seconds)."""


class EngineSettings(Section):
    """A local vLLM that `trilith up` starts and keeps alive."""

    engine: Literal["vllm"] = "vllm"
    """Which engine."""
    model: str = "smollm2-135m-instruct"
    """`smollm2-135m-instruct` (comes inside a package, no model hub needed), a folder, or a hub id."""
    port: int = Field(8100, ge=1, le=65535)
    """Port on 127.0.0.1."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto takes float32 on processors without bfloat16 instructions."""
    max_model_len: int = Field(2048, ge=128)
    """Longest sequence, prompt and answer together (tokens)."""
    kv_cache_gib: float = Field(1, gt=0)
    """Memory for the key-value cache on CPU (GiB)."""
    args: tuple[str, ...] = ()
    """Further arguments for vLLM's server, as on its command line."""
    ready_timeout_s: float = Field(600, gt=0)
    """How long a start may take before it counts as failed (seconds)."""
    cost: EngineCostSettings | None = None
    """What its time costs; none: it is not booked."""
