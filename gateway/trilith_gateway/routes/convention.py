"""What a drop-in endpoint owes its clients beside the routes: paths without `/v1`, HEAD, OPTIONS."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trilith.errors import BadRequestError
from trilith_gateway import edge, sse

_UNVERSIONED = frozenset(
    {
        "audio",
        "batches",
        "chat",
        "completions",
        "embeddings",
        "files",
        "images",
        "messages",
        "moderations",
        "rerank",
        "responses",
    }
)
"""First parts of OpenAI's paths, for clients whose base URL ends before `/v1`."""


def install(app: FastAPI) -> None:
    """Teach the application the conventions."""
    app.add_middleware(_Paths, routes=list(_routes(app)))
    app.add_exception_handler(RequestValidationError, _invalid)


def _routes(app: FastAPI) -> Iterator[Route]:
    """Yield every route; a router that was included is one entry among them."""
    for entry in app.router.routes:
        inner: APIRouter | None = getattr(entry, "original_router", None)
        for route in [entry] if inner is None else inner.routes:
            if isinstance(route, Route):
                yield route


class _Paths:
    """Reads a request as what it means, before it is routed."""

    def __init__(self, app: ASGIApp, routes: list[Route]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = _meant(scope)
            if scope["method"] == "OPTIONS" and (methods := self._methods(scope)):
                await Response(status_code=204, headers={"allow": ", ".join(methods)})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _methods(self, scope: Scope) -> list[str]:
        found: set[str] = {"OPTIONS"}
        routes = [route for route in self._routes if route.path_regex.match(scope["path"]) is not None]
        for route in routes:
            if route.path == routes[0].path:  # later ones are wider, and take names for what they are not
                found |= route.methods or set()
        if "GET" in found:
            found.add("HEAD")
        return sorted(found) if len(found) > 1 else []


def _meant(scope: Scope) -> Scope:
    method, path = scope["method"], scope["path"]
    first = path[1:].partition("/")[0]
    if first in _UNVERSIONED or (first == "models" and not path.endswith("/invocations")):
        scope = {**scope, "path": f"/v1{path}", "raw_path": b"/v1" + (scope.get("raw_path") or path.encode())}
    if method == "HEAD":  # the server leaves the body out by itself
        scope = {**scope, "method": "GET"}
    return scope


async def _invalid(request: Request, error: Exception) -> Response:
    """Tell of a parameter that cannot be read; what was given is not repeated."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in errors)
    given = BadRequestError(
        told or "The request cannot be read.", status_code=400, type="invalid_request_error"
    )
    body = sse.dump(edge.told(request.url.path, given))
    return Response(body, 400, media_type="application/json")
