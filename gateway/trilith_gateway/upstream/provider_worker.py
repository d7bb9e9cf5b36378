"""A process that speaks OpenAI's protocol on a Unix socket and translates to other providers through litellm.

litellm lives here and nowhere else: its import, its memory and its faults never touch the gateway. Which
model to call and with which credential arrives with each request in a header, on a socket that only this user
can open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trilith_gateway.upstream.provider_fields import CHAT, EMBEDDINGS, NotPassedOn, check

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else the import waits for the network

TARGET = "x-trilith-provider"
"""Header with the JSON object `{"model", "api_base", "api_key"}`; the two last may be null."""


def create_app() -> Starlette:
    """Return the worker's application; importing litellm takes seconds, so it happens here."""
    import litellm

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    _fetch_nothing()

    async def complete(request: Request) -> Response:
        body = await request.json()
        try:
            # Without the last, litellm looks for tools of its own, with a package that is not installed.
            asked = litellm.acompletion(**_arguments(request, body, CHAT), _skip_mcp_handler=True)
            answer = await _unless_gone(request, asked)
        except Exception as error:  # litellm wraps every provider's errors in classes of its own
            return _error(error)
        if not body.get("stream"):
            return JSONResponse(answer.model_dump(exclude_none=True))
        return StreamingResponse(_events(answer), media_type="text/event-stream")

    async def embed(request: Request) -> Response:
        try:
            made = await litellm.aembedding(**_arguments(request, await request.json(), EMBEDDINGS))
        except Exception as error:
            return _error(error)
        return JSONResponse(made.model_dump(exclude_none=True))

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": []})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", complete, methods=["POST"]),
            Route("/v1/embeddings", embed, methods=["POST"]),
            Route("/v1/models", models),
            Route("/{path:path}", _elsewhere, methods=["GET", "POST", "DELETE"]),
        ]
    )


def _arguments(request: Request, body: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    """Return litellm's arguments: the caller's allowed fields, then the operator's, which win even unset.

    Retries belong to the gateway.
    """
    target = json.loads(request.headers[TARGET])
    check(body, allowed, target["model"])
    return {**body, **target, "max_retries": 0, "num_retries": 0}


def _fetch_nothing() -> None:
    """Let litellm fetch no address out of a message: what the caller names is for the provider to fetch."""
    import litellm
    from litellm.litellm_core_utils import url_utils

    def refuse(url: str) -> tuple[str, str]:
        raise url_utils.SSRFError("addresses in messages are not fetched here; send data URLs")

    litellm.user_url_validation = True  # without it the check is passed by
    url_utils.validate_url = refuse


async def _elsewhere(request: Request) -> Response:
    detail = {
        "message": f"A provider behind litellm does not answer {request.url.path}; "
        "use /v1/chat/completions or /v1/embeddings.",
        "type": "invalid_request_error",
        "param": None,
        "code": "operation_not_supported",
    }
    return JSONResponse({"error": detail}, status_code=400)


async def _unless_gone(request: Request, call: Any) -> Any:
    """Await a call, and cancel it when the gateway hangs up first."""
    work = asyncio.ensure_future(call)

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watch = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        return await work
    finally:
        watch.cancel()


async def _events(chunks: Any) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield b"data: " + json.dumps(chunk.model_dump(exclude_none=True)).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"
    except Exception as error:  # the head is out; the protocol's way to say it is an error event
        yield b"data: " + json.dumps(_object(error)).encode() + b"\n\n"
    finally:
        if (close := getattr(chunks, "aclose", None)) is not None:
            await close()


def _error(error: Exception) -> Response:
    if isinstance(error, NotPassedOn):
        detail = {
            "message": str(error),
            "type": "invalid_request_error",
            "param": error.param,
            "code": "unsupported_parameter",
        }
        return JSONResponse({"error": detail}, status_code=400)
    # Where the provider's own headers are depends on the provider's adapter.
    places = (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    )
    told = {name.lower(): value for headers in places if headers for name, value in dict(headers).items()}
    kept = {name: str(told[name]) for name in ("retry-after", "retry-after-ms") if name in told}
    return JSONResponse(_object(error), status_code=_status(error), headers=kept)


def _status(error: Exception) -> int:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and 400 <= status <= 599 else 502


def _object(error: Exception) -> dict[str, object]:
    detail = {
        "message": str(getattr(error, "message", None) or error),
        "type": str(getattr(error, "type", None) or "upstream_error"),
        "param": getattr(error, "param", None),
        "code": getattr(error, "code", None),
    }
    return {"error": detail}


def main() -> None:
    """Serve on the socket that the command line names until stdin ends, which it does with the parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    path = parser.parse_args().socket
    server = uvicorn.Server(uvicorn.Config(create_app(), uds=path, log_level="error", access_log=False))

    def follow_parent() -> None:
        while os.read(0, 1024):
            pass
        server.force_exit = server.should_exit = True

    threading.Thread(target=follow_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
