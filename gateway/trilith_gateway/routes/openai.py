"""OpenAI's protocol, Anthropic's messages, and reranking: whatever a model answers over `/v1`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith_gateway.api import OPERATIONS, Api
from trilith_gateway.http import ExchangeResponse
from trilith_gateway.platform import Platform
from trilith_gateway.routes import schema
from trilith_gateway.routes.page import described
from trilith_gateway.wire.route import PATHS

_ANTHROPIC: dict[str, Any] = {"words": "AnthropicError"}
_STREAMS: dict[str, Any] = {"streams": True}
_DESCRIBED: dict[Api, tuple[str, dict[str, Any], dict[str, Any]]] = {
    Api.CHAT: ("Chat with a chat or rag model", schema.CHAT, {"answer": schema.CHOICES, **_STREAMS}),
    Api.COMPLETION: ("Complete a text", schema.COMPLETION, {"answer": schema.CHOICES, **_STREAMS}),
    Api.EMBEDDING: ("Turn texts into vectors", schema.EMBEDDING, {"answer": schema.VECTORS}),
    Api.RESPONSE: (
        "Respond; translated where the upstream speaks chat alone",
        schema.RESPONSE,
        _STREAMS,
    ),
    Api.MESSAGE: (
        "Chat in Anthropic's protocol",
        schema.MESSAGE,
        {"answer": schema.SAID, **_ANTHROPIC, **_STREAMS},
    ),
    Api.COUNT: ("Count a message's tokens, where the upstream does", schema.COUNT, _ANTHROPIC),
    Api.RERANK: ("Order documents by how well they answer a query", schema.RERANK, {}),
    Api.MODERATION: ("Say whether a text may be shown", schema.MODERATION, {}),
    Api.IMAGE: ("Make images", schema.IMAGE, _STREAMS),
    Api.IMAGE_EDIT: ("Change an image", schema.IMAGE_FORM, _STREAMS),
    Api.IMAGE_VARIATION: ("Vary an image", schema.IMAGE_FORM, {}),
    Api.SPEECH: ("Speak a text", schema.SPEECH, _STREAMS),
    Api.TRANSCRIPTION: ("Write down a recording", schema.AUDIO_FORM, _STREAMS),
    Api.TRANSLATION: ("Translate a recording into English", schema.AUDIO_FORM, {}),
}


def router(platform: Platform) -> APIRouter:
    """Return the routes; their bodies are read by the pipeline, after the key is known."""
    routes = APIRouter(tags=["openai"])

    def endpoint(api: Api) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return ExchangeResponse(request, api, platform.front)

        return answer

    for path, api in ({**PATHS, "/v2/rerank": Api.RERANK}).items():
        summary, body, told = _DESCRIBED[api]
        operation = OPERATIONS[api]
        routes.add_api_route(
            path,
            endpoint(api),
            methods=["POST"],
            name=path.removeprefix("/").replace("/", "_"),
            summary=summary,
            **described(
                body,
                form=operation.form,
                opaque=operation.opaque or operation.form,
                forwards=True,
                **told,
            ),
        )
    return routes
