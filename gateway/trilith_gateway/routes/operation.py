"""Health and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from trilith_gateway.platform import Platform
from trilith_gateway.routes.access import reply
from trilith_gateway.routes.page import open_route


def router(platform: Platform) -> APIRouter:
    """Return the routes; they are open, and tell nothing about callers."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", summary="Say whether the process runs", **open_route({"type": "object"}))
    async def healthz() -> Response:
        return reply({"status": "ok"})

    @routes.get(
        "/readyz", summary="Say which models can answer", **open_route({"type": "object"}, not_ready=True)
    )
    async def readyz() -> Response:
        models = {release.model: await release.upstream.ready() for release in platform.releases}
        warm = platform.warmed.is_set() and not platform.draining
        ready = warm and (any(models.values()) or not models)
        return reply({"ready": ready, "models": models}, status=200 if ready else 503)

    @routes.get("/metrics", summary="Prometheus metrics", **open_route())
    async def metrics() -> Response:
        return Response(platform.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
