"""The gateway's and the store's own fixtures."""

from __future__ import annotations

from gateway.conftest import start_gateway
from store.conftest import home, opened, postgres_url, server, url

__all__ = ["home", "opened", "postgres_url", "server", "start_gateway", "url"]
