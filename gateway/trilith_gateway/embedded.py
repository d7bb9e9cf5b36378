"""The gateway inside an application's own process: no server, no port, the same nine stages."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from trilith.settings import load_settings
from trilith_gateway import key, platform
from trilith_gateway.app import assemble
from trilith_gateway.engines import Engines


class EmbeddedGateway:
    """What `Client.embedded` runs: engines, gateway, and a key that lives as long as the client."""

    def __init__(self, path: str | Path | None) -> None:
        """Read the settings; nothing is started yet."""
        self._settings = load_settings(None if path is None else Path(path)).settings
        made, self.api_key = key.mint("embedded", team="embedded")
        self._key = made
        self._engines = Engines(self._settings, self._settings.home)
        self._app: FastAPI | None = None

    @property
    def app(self) -> FastAPI:
        """The ASGI application, once started."""
        if self._app is None:
            raise RuntimeError("the embedded gateway is not started")
        return self._app

    async def startup(self) -> None:
        """Start the engines that the settings name, then the gateway."""
        await self._engines.start_all()
        try:
            urls = {name: self._engines.url(name) for name in self._settings.engines}
            self._app = assemble(platform.build(self._settings, urls, fixed_keys=(self._key,)))
            self._lifespan = self._app.router.lifespan_context(self._app)
            await self._lifespan.__aenter__()
        except BaseException:
            await self._engines.stop_all()
            raise

    async def shutdown(self) -> None:
        """Close the gateway, then the engines."""
        try:
            await self._lifespan.__aexit__(None, None, None)
        finally:
            await self._engines.stop_all()


def open_gateway(path: str | Path | None) -> EmbeddedGateway:
    """Make the embedded gateway for a settings file."""
    return EmbeddedGateway(path)
