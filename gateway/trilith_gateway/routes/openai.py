"""OpenAI's protocol: chat, completions, embeddings."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith_gateway.exchange import Api
from trilith_gateway.http import ExchangeResponse
from trilith_gateway.platform import Platform
from trilith_gateway.routes import schema


def router(platform: Platform) -> APIRouter:
    """Return the routes; their bodies are read by the pipeline, after the key is known."""
    routes = APIRouter(tags=["openai"])

    def answer(request: Request, api: Api) -> Response:
        return ExchangeResponse(
            request, api, pipeline=platform.pipeline, tracer=platform.tracer, metrics=platform.metrics
        )

    def post(path: str, body: dict[str, Any], summary: str) -> Any:
        return routes.post(
            path, response_class=Response, openapi_extra=schema.operation(body), summary=summary
        )

    @post("/v1/chat/completions", schema.CHAT, "Chat with a chat or rag model, streamed or not")
    async def chat(request: Request) -> Response:
        return answer(request, Api.CHAT)

    @post("/v1/completions", schema.COMPLETION, "Complete a text, streamed or not")
    async def completion(request: Request) -> Response:
        return answer(request, Api.COMPLETION)

    @post("/v1/embeddings", schema.EMBEDDING, "Turn texts into vectors")
    async def embedding(request: Request) -> Response:
        return answer(request, Api.EMBEDDING)

    return routes
