"""OpenAI's protocol: chat, completions, embeddings; and Anthropic's messages."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith_gateway.api import Api
from trilith_gateway.http import ExchangeResponse
from trilith_gateway.platform import Platform
from trilith_gateway.routes import schema
from trilith_gateway.routes.page import described


def router(platform: Platform) -> APIRouter:
    """Return the routes; their bodies are read by the pipeline, after the key is known."""
    routes = APIRouter(tags=["openai"])

    def answer(request: Request, api: Api) -> Response:
        return ExchangeResponse(request, api, platform.front)

    @routes.post(
        "/v1/chat/completions",
        summary="Chat with a chat or rag model",
        **described(schema.CHAT, answer=schema.CHOICES, streams=True, forwards=True),
    )
    async def chat(request: Request) -> Response:
        return answer(request, Api.CHAT)

    @routes.post(
        "/v1/completions",
        summary="Complete a text",
        **described(schema.COMPLETION, answer=schema.CHOICES, streams=True, forwards=True),
    )
    async def completion(request: Request) -> Response:
        return answer(request, Api.COMPLETION)

    @routes.post(
        "/v1/embeddings",
        summary="Turn texts into vectors",
        **described(schema.EMBEDDING, answer=schema.VECTORS, forwards=True),
    )
    async def embedding(request: Request) -> Response:
        return answer(request, Api.EMBEDDING)

    @routes.post(
        "/v1/responses",
        summary="Respond, where the upstream does",
        **described(schema.RESPONSE, streams=True, forwards=True),
    )
    async def response(request: Request) -> Response:
        return answer(request, Api.RESPONSE)

    @routes.post(
        "/v1/messages",
        summary="Chat in Anthropic's protocol",
        **described(schema.MESSAGE, answer=schema.SAID, words="AnthropicError", streams=True, forwards=True),
    )
    async def message(request: Request) -> Response:
        return answer(request, Api.MESSAGE)

    return routes
