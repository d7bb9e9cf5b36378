"""Health and metrics."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith.errors import APIStatusError
from trilith_gateway.platform import Platform
from trilith_gateway.routes.access import caller, refusal, reply
from trilith_gateway.routes.page import LISTING, described, open_route
from trilith_gateway.routes.readiness import Readiness


def router(platform: Platform, readiness: Readiness) -> APIRouter:
    """Return the routes; all but the version are open, and tell nothing about callers."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", summary="Say whether the process runs", **open_route({"type": "object"}))
    async def healthz() -> Response:
        return reply({"status": "ok"})

    @routes.get("/health", summary="The same, as vLLM says it: with an empty body", **open_route())
    @routes.get("/livez", summary="The same, as Kubernetes' own servers say it", **open_route())
    @routes.get("/ping", summary="The same, as MLflow and SageMaker say it", **open_route())
    async def health() -> Response:
        return Response(media_type="text/plain")

    @routes.get("/version", summary="Say which release answers", **described(statuses=LISTING))
    async def told_version(request: Request) -> Response:
        try:
            await caller(platform, request)
        except APIStatusError as error:
            return refusal(error)
        return reply({"version": version("trilith")})

    @routes.get(
        "/readyz", summary="Say which models can answer", **open_route({"type": "object"}, not_ready=True)
    )
    async def readyz() -> Response:
        models = await readiness.of(platform.releases)
        ready = platform.warmed.is_set() and not platform.draining and (any(models.values()) or not models)
        return reply({"ready": ready, "models": models}, status=200 if ready else 503)

    @routes.get("/metrics", summary="Prometheus metrics", **open_route())
    async def metrics() -> Response:
        return Response(platform.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
