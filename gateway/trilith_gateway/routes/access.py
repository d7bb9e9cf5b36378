"""Access for routes that are not exchanges: the same keys, the same errors."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from trilith.errors import APIStatusError
from trilith_gateway import fault, sse
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.stages.identify import Identify


async def caller(platform: Platform, request: Request) -> Key:
    """Return the key that a request carries.

    Raises:
        AuthenticationError: none, or an unknown one.
    """
    exchange = Exchange(Api.CHAT, request.url.path, dict(request.headers), _nothing)
    if (wait := Identify(platform.keys)(exchange)) is not None:
        await wait
    return exchange.caller


def _nothing(most_bytes: int) -> bytes:
    return b""


def refusal(error: APIStatusError, *, text: bool = False) -> Response:
    """Return the answer to an error: OpenAI's object, or with `text` the inference protocol's string."""
    body = {"error": error.message} if text else fault.openai(error)
    return reply(body, status=error.status_code)


def reply(body: object, *, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(sse.dump(body), status_code=status, media_type="application/json")
