"""Health and metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from trilith_gateway.platform import Platform
from trilith_gateway.routes.access import reply


def router(platform: Platform) -> APIRouter:
    """Return the routes; they are open, and tell nothing about callers."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", response_class=Response, summary="Say whether the process runs")
    async def healthz() -> Response:
        return reply({"status": "ok"})

    @routes.get("/readyz", response_class=Response, summary="Say which models can answer")
    async def readyz() -> Response:
        models = {release.model: await release.upstream.ready() for release in platform.releases}
        ready = platform.warmed.is_set() and not platform.draining and (any(models.values()) or not models)
        return reply({"ready": ready, "models": models}, status=200 if ready else 503)

    @routes.get("/metrics", response_class=Response, summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(platform.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
