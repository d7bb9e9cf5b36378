"""What a drop-in endpoint owes its clients beside the routes: paths without `/v1`, HEAD, OPTIONS, errors."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from trilith.errors import APIStatusError, status_error_class
from trilith_gateway.routes.access import refusal

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
_WORDS = {404: "There is no such path", 405: "This path does not take this method"}


def install(app: FastAPI) -> None:
    """Teach the application the conventions."""
    app.add_middleware(_Paths, routes=list(_routes(app)))
    app.add_exception_handler(HTTPException, _http)
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
        for route in self._routes:
            if route.path_regex.match(scope["path"]) is not None:
                found |= route.methods or set()
        if "GET" in found:
            found.add("HEAD")
        return sorted(found) if len(found) > 1 else []


def _meant(scope: Scope) -> Scope:
    method, path = scope["method"], scope["path"]
    first = path[1:].partition("/")[0]
    if first in _UNVERSIONED or (first == "models" and method != "POST"):
        scope = {**scope, "path": f"/v1{path}", "raw_path": b"/v1" + (scope.get("raw_path") or path.encode())}
    if method == "HEAD":  # the server leaves the body out by itself
        scope = {**scope, "method": "GET"}
    return scope


async def _http(request: Request, error: Exception) -> Response:
    """Tell of a path or a method that is not there, in the shape that its clients know."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = _WORDS.get(status) or str(getattr(error, "detail", "The request failed"))
    made = refusal(_error(status, f"{told}: {request.method} {request.url.path[:200]}"), text=_v2(request))
    for name, value in (getattr(error, "headers", None) or {}).items():
        made.headers[name] = value
    return made


async def _invalid(request: Request, error: Exception) -> Response:
    """Tell of a parameter that cannot be read; what was given is not repeated."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in errors)
    return refusal(_error(400, told or "The request cannot be read."), text=_v2(request))


def _v2(request: Request) -> bool:
    return request.url.path.startswith("/v2")


def _error(status: int, message: str) -> APIStatusError:
    codes = {404: "unknown_url", 405: "method_not_allowed"}
    kind = "invalid_request_error" if status < 500 else "server_error"
    return status_error_class(status)(message, status_code=status, code=codes.get(status), type=kind)
