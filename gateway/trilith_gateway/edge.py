"""What every answer has, also those that no stage gives: a request id, and errors in its path's protocol."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trilith.errors import APIError, APIStatusError, InternalServerError
from trilith_gateway import fault, sse
from trilith_gateway.dialect import anthropic
from trilith_gateway.identifier import new_id
from trilith_gateway.inference import mlflow

_REASONS = {
    404: "There is no such path; GET /openapi.json lists those that there are.",
    405: "This path does not take that method; the header `allow` says which it takes.",
}
_CODES = {404: "unknown_url", 405: "method_not_allowed"}
"""As OpenAI says it."""


def told(path: str, error: APIError) -> dict[str, Any]:
    """Return an error's body in the protocol that `path` belongs to."""
    if path.startswith("/v2"):
        return fault.inference(error)
    if path.startswith(("/v1/messages", "/messages")):
        return anthropic.error(error)
    if path.endswith("/invocations"):
        return mlflow.error(error)
    return fault.openai(error)


def dress(app: FastAPI) -> None:
    """Let `app` answer what it has no route for, or what a route fails at, as the gateway answers."""

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        message = _REASONS.get(status, "The request cannot be answered.")
        type = "invalid_request_error" if status < 500 else "server_error"
        given = APIStatusError(message, status_code=status, code=_CODES.get(status), type=type)
        headers = error.headers if isinstance(error, HTTPException) else None
        return _answer(request, given, dict(headers or {}))

    async def failed(request: Request, error: Exception) -> Response:
        given = InternalServerError("The gateway failed; its log has the reason.", status_code=500)
        return _answer(request, given, {"x-request-id": new_id(time.time_ns())})

    async def left(request: Request, error: Exception) -> Response:
        return Response(status_code=408)  # that a caller breaks off is no fault to log; nobody reads this

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, failed)
    app.add_middleware(_Named)


def _answer(request: Request, error: APIStatusError, headers: dict[str, str]) -> Response:
    body = sse.dump(told(request.url.path, error))
    return Response(body, error.status_code, headers, media_type="application/json")


class _Named:
    """Gives every answer an `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("x-request-id", new_id(time.time_ns()))
            await send(message)

        await self._app(scope, receive, named if scope["type"] == "http" else send)
