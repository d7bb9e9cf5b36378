"""The gateway's own fixtures, and a desk before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest
from gateway.conftest import start_gateway
from support.desk import HALF, Desk
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream

__all__ = ["start_gateway"]


class OpenDesk(Protocol):
    def __call__(self, gateway: Gateway, token: str | None = None) -> Desk: ...


@pytest.fixture
def open_desk() -> Iterator[OpenDesk]:
    """Open desks; they are closed at the end."""
    with ExitStack() as stack:

        def opened(gateway: Gateway, token: str | None = None) -> Desk:
            made = Desk(gateway, token)
            stack.callback(made.openai.close)
            return made

        yield opened


@pytest.fixture
def upstream() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, upstream: MemoryUpstream) -> Gateway:
    return start_gateway({"echo": upstream}, echo=HALF)


@pytest.fixture
def desk(gateway: Gateway, open_desk: OpenDesk) -> Desk:
    return open_desk(gateway)
