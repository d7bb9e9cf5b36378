"""A provider that speaks Anthropic's Messages protocol only, for the real litellm to translate to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {
    "input_tokens": 10,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 0,
    "output_tokens": 3,
}
"""Anthropic counts cached tokens beside `input_tokens`, not within."""


class AnthropicServer:
    """Answers with the last user text in three pieces; remembers what it got."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.cut_off = 0
        self.pause_s = 0.0
        self.fail: tuple[int, dict[str, str]] | None = None
        self.app = Starlette(routes=[Route("/v1/messages", self.messages, methods=["POST"])])

    async def messages(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("x-api-key", ""))
        if self.fail is not None:
            status, headers = self.fail
            error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
            return JSONResponse(error, status, headers)
        text = body["messages"][-1]["content"]
        text = text if isinstance(text, str) else text[0]["text"]
        if body.get("stream"):
            return StreamingResponse(self._stream(body, text), media_type="text/event-stream")
        return JSONResponse(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": [{"type": "text", "text": text}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": USAGE,
            }
        )

    async def _stream(self, body: dict[str, Any], text: str) -> AsyncIterator[bytes]:
        def event(kind: str, **fields: Any) -> bytes:
            return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()

        try:
            message = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": [],
            }
            yield event(
                "message_start",
                message={**message, "stop_reason": None, "usage": {**USAGE, "output_tokens": 1}},
            )
            yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            for piece in (text[:3], text[3:6], text[6:]):
                yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
                await asyncio.sleep(self.pause_s)
            yield event("content_block_stop", index=0)
            stop = {"stop_reason": "end_turn", "stop_sequence": None}
            yield event("message_delta", delta=stop, usage={"output_tokens": USAGE["output_tokens"]})
            yield event("message_stop")
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
