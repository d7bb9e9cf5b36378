"""A replica that knows the model under another name than its neighbours."""

from __future__ import annotations

from dataclasses import replace

from trilith.seams import Call, Reply, Upstream
from trilith_gateway import multipart, request


class RenamedUpstream:
    """Writes another model's name into each body."""

    def __init__(self, inner: Upstream, model: str) -> None:
        """Take the upstream and its own name of the model."""
        self.inner = inner
        self._model = model

    async def send(self, call: Call) -> Reply:
        """Send one call."""
        name = {"model": self._model}
        if call.headers.get("content-type", "").lower().startswith("multipart/"):
            body = multipart.splice(call.body, call.headers, name)
        else:
            body = request.splice(call.body, request.decode(call.body), name)
        return await self.inner.send(replace(call, body=body))

    async def ready(self) -> bool:
        """Say whether the upstream is ready."""
        return await self.inner.ready()

    async def aclose(self) -> None:
        """Close the upstream."""
        await self.inner.aclose()


def served(upstream: Upstream) -> Upstream:
    """Return what stands behind another name or protocol (its `inner`), or the upstream itself."""
    inner: Upstream = getattr(upstream, "inner", upstream)
    return inner
