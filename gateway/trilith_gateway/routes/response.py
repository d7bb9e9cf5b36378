"""Responses that an upstream keeps: read again, deleted, cancelled, by the team that made them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from trilith.errors import APIConnectionError, APIError, NotFoundError
from trilith_gateway import fault, kept
from trilith_gateway import request as reading
from trilith_gateway.platform import Platform
from trilith_gateway.routes.access import caller, reply
from trilith_gateway.routes.page import FORWARDED, described

_TIMEOUT_S = 60.0
_PASSED_ON = frozenset({"after", "before", "include", "include[]", "limit", "order"})
"""Which parameters of a question go on."""
_VALUE = re.compile(r"[A-Za-z0-9_.:,-]{1,256}")


def router(platform: Platform) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["openai"])
    told: dict[str, Any] = described(statuses=FORWARDED, forwards=True)

    async def answer(request: Request, id: str, method: str, below: str = "") -> Response:
        try:
            key = await caller(platform, request)
            asked = _asked(request) if method == "GET" else ""
            found = await platform.kept.find(key, id)
            release = None if found is None else platform.releases.find(found.model)
            if found is None or release is None:
                raise _gone()
            server = kept.server(release, found)
            if server is None:
                raise _gone()
            path = f"/v1/responses/{id}{below}{asked}"
            status, body = await server.fetch(path, timeout_s=_TIMEOUT_S, method=method)
            if 300 <= status < 400:
                raise APIConnectionError("the upstream answered with a redirect, which is not followed")
        except APIError as error:
            return reply(fault.openai(error), status=fault.status(error))
        return Response(body, status, media_type="application/json")

    @routes.get("/v1/responses/{id}", summary="Read a response again, where the upstream keeps it", **told)
    async def response(request: Request, id: str) -> Response:
        return await answer(request, id, "GET")

    @routes.delete("/v1/responses/{id}", summary="Delete a response where it is kept", **told)
    async def delete(request: Request, id: str) -> Response:
        return await answer(request, id, "DELETE")

    @routes.get("/v1/responses/{id}/input_items", summary="List what a response was the answer to", **told)
    async def items(request: Request, id: str) -> Response:
        return await answer(request, id, "GET", "/input_items")

    @routes.post("/v1/responses/{id}/cancel", summary="End a response that is made in the background", **told)
    async def cancel(request: Request, id: str) -> Response:
        return await answer(request, id, "POST", "/cancel")

    return routes


def _asked(request: Request) -> str:
    """Return the question's parameters as they go on.

    Raises:
        BadRequestError: a stream is asked for, or a value is none that a list's parameter can have.
    """
    given = request.query_params
    if given.get("stream", "false").lower() != "false":
        reading.refuse("`stream` is not offered here: a response is read again as a whole.", "stream")
    found = [(name, value) for name, value in given.multi_items() if name in _PASSED_ON]
    for name, value in found:
        if not _VALUE.fullmatch(value):
            reading.refuse(f"`{name}` is expected to be a name or a number.", name)
    return f"?{urlencode(found)}" if found else ""


def _gone() -> NotFoundError:
    return NotFoundError(
        "There is no such response: no key of this team made it, its model's upstream keeps none, or it is "
        "gone.",
        status_code=404,
        param="response_id",
        type="invalid_request_error",
    )
