"""Fixtures around a real gateway with in-memory upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.gateway import PRICE, Gateway, Running, StartGateway

from trilith.seams import Upstream
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways; a model that is not described is a priced chat model."""
    with ExitStack() as stack:

        def start(
            upstreams: Mapping[str, Upstream],
            *,
            gateway: Mapping[str, Any] | None = None,
            **models: dict[str, Any],
        ) -> Gateway:
            described = {
                name: {
                    "kind": "chat",
                    "upstream": {"url": "http://127.0.0.1:9/v1"},
                    "price": PRICE,
                    **models.get(name, {}),
                }
                for name in dict.fromkeys((*upstreams, *models))
            }
            settings = Settings.model_validate(
                {
                    "home": tmp_path / "home",
                    "gateway": dict(gateway or {}),
                    "policies": {"private": {}},
                    "models": described,
                }
            )
            return stack.enter_context(Running(settings, upstreams))

        yield start


@pytest.fixture
def echo() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, echo: MemoryUpstream) -> Gateway:
    return start_gateway({"echo": echo})
