"""The gateway's own fixtures."""

from __future__ import annotations

from gateway.conftest import start_gateway

__all__ = ["start_gateway"]
