"""The Open Inference Protocol, version 2, for predictors."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith.errors import APIStatusError
from trilith.seams import Call
from trilith.types import Kind
from trilith_gateway.api import Api
from trilith_gateway.exchange import model_not_found
from trilith_gateway.http import ExchangeResponse
from trilith_gateway.platform import Platform
from trilith_gateway.release import Release
from trilith_gateway.routes import schema
from trilith_gateway.routes.access import caller, refusal, reply


def router(platform: Platform) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v2", tags=["inference"])

    async def predictor(request: Request, name: str) -> Release:
        key = await caller(platform, request)
        release = platform.releases.find(name)
        if release is None or release.kind is not Kind.PREDICTOR or not key.allows(name):
            raise model_not_found(name, Api.PREDICT)
        return release

    @routes.get("", response_class=Response, summary="Describe the server")
    async def server(request: Request) -> Response:
        try:
            await caller(platform, request)
        except APIStatusError as error:
            return refusal(error, text=True)
        return reply({"name": "trilith", "version": version("trilith"), "extensions": []})

    @routes.get("/health/live", response_class=Response, summary="Say whether the server runs")
    async def live() -> Response:
        return reply({"live": True})

    @routes.get("/health/ready", response_class=Response, summary="Say whether every predictor can answer")
    async def ready() -> Response:
        predictors = [r for r in platform.releases if r.kind is Kind.PREDICTOR]
        state = all([await release.upstream.ready() for release in predictors])
        return reply({"ready": state}, status=200 if state else 503)

    @routes.get("/models/{name}/ready", response_class=Response, summary="Say whether a predictor can answer")
    async def model_ready(request: Request, name: str) -> Response:
        try:
            state = await (await predictor(request, name)).upstream.ready()
        except APIStatusError as error:
            return refusal(error, text=True)
        return reply({"name": name, "ready": state}, status=200 if state else 503)

    @routes.get(
        "/models/{name}", response_class=Response, summary="Describe a predictor's inputs and outputs"
    )
    async def metadata(request: Request, name: str) -> Response:
        try:
            release = await predictor(request, name)
            described = await release.upstream.send(Call(path=f"/v2/models/{name}", body=b""))
        except APIStatusError as error:
            return refusal(error, text=True)
        body = b"".join([chunk async for chunk in described.chunks()])
        return Response(body, status_code=described.status, media_type="application/json")

    @routes.post(
        "/models/{name}/infer",
        response_class=Response,
        openapi_extra=schema.operation(schema.INFERENCE),
        summary="Predict",
    )
    async def infer(request: Request, name: str) -> Response:
        return ExchangeResponse(request, Api.PREDICT, platform.front, model=name)

    return routes
