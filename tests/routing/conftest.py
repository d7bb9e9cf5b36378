"""The gateway's own fixtures, and scripted servers."""

from __future__ import annotations

from gateway.conftest import start_gateway
from sdk.client.conftest import serve

__all__ = ["serve", "start_gateway"]
