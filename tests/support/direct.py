"""A platform without a server and without a span, which a test calls itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from support.gateway import PRICE
from trilith.seams import Upstream
from trilith.settings.schema import Settings
from trilith_gateway import key as keys
from trilith_gateway import platform as platforms
from trilith_gateway.api import OPERATIONS, Api
from trilith_gateway.exchange import Exchange


def direct(
    home: Path,
    telling: Upstream,
    body: dict[str, Any],
    *,
    api: Api = Api.CHAT,
    budget_pico_usd: int | None = None,
    others: Mapping[str, tuple[Upstream, dict[str, Any]]] = {},
    **model: Any,
) -> tuple[platforms.Platform, Exchange]:
    """A platform without a server and without a span, and one request to it."""
    described = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": PRICE, **model}
    models = {"m": described, **{name: settings for name, (_, settings) in others.items()}}
    settings = Settings.model_validate({"home": home, "engines": {"e": {}}, "models": models})
    made, token = keys.mint("k", team="direct", budget_pico_usd=budget_pico_usd)
    given = {"m": telling, **{name: upstream for name, (upstream, _) in others.items()}}
    provider = TracerProvider(sampler=ALWAYS_OFF)
    built = platforms.build(settings, given=given, fixed_keys=(made,), provider=provider)
    asked = {"messages": [{"role": "user", "content": "x"}]} if api is Api.CHAT else {}
    raw = json.dumps({"model": "m", **asked, **body}).encode()
    headers = {"authorization": f"Bearer {token}"}
    return built, Exchange(api, OPERATIONS[api].path or "", headers, lambda _: raw)
