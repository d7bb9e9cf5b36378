"""OpenAI's list of models, with the kind of each."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith.errors import APIStatusError
from trilith_gateway.api import Api
from trilith_gateway.exchange import model_not_found
from trilith_gateway.platform import Platform
from trilith_gateway.release import Release
from trilith_gateway.routes import page, schema
from trilith_gateway.routes.access import caller, refusal, reply


def router(platform: Platform) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["models"])
    created = int(time.time())

    def shown(release: Release) -> dict[str, object]:
        return {
            "id": release.model,
            "object": "model",
            "created": created,
            "owned_by": release.provider,
            "root": release.upstream_model,
            "parent": None,
            "max_model_len": release.context_tokens,
            "kind": release.kind.value,
            "release": release.version,
            "priced": release.price is not None,
        }

    @routes.get(
        "/v1/models",
        summary="List the models that this key may call",
        **page.described(answer=schema.MODELS, statuses=page.LISTING),
    )
    async def models(request: Request) -> Response:
        try:
            key = await caller(platform, request)
        except APIStatusError as error:
            return refusal(error)
        data = [shown(release) for release in platform.releases if key.allows(release.model)]
        return reply({"object": "list", "data": data})

    @routes.get(
        "/v1/models/{name:path}",
        summary="Describe one model",
        **page.described(answer=schema.MODEL, statuses=(*page.LISTING, 404)),
    )
    async def model(request: Request, name: str) -> Response:
        try:
            key = await caller(platform, request)
            release = platform.releases.find(name)
            if release is None or not key.allows(name):
                raise model_not_found(name, Api.CHAT)
        except APIStatusError as error:
            return refusal(error)
        return reply(shown(release))

    return routes
