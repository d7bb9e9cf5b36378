"""Access for routes that are not exchanges: the same keys, the same limits, the same errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from trilith.errors import APIStatusError, PermissionDeniedError
from trilith_gateway import answer, fault, sse
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import Key
from trilith_gateway.limits.keeper import LimitKeeper
from trilith_gateway.platform import Platform
from trilith_gateway.stages.identify import Identify

Work: TypeAlias = Callable[[Key], Awaitable[Response]]
"""What is done for a known key."""


async def caller(platform: Platform, request: Request) -> Key:
    """Return the key that a request carries.

    Raises:
        AuthenticationError: none, or an unknown one.
    """
    return (await _identified(platform, request)).caller


async def _identified(platform: Platform, request: Request) -> Exchange:
    exchange = Exchange(Api.CHAT, request.url.path, dict(request.headers), _nothing)
    if (wait := Identify(platform.keys)(exchange)) is not None:
        await wait
    return exchange


def _nothing(most_bytes: int) -> bytes:
    return b""


def administrator(work: Work) -> Work:
    """Do some work for admin keys alone; every other key is told what it lacks."""

    async def checked(key: Key) -> Response:
        if not key.admin:
            raise PermissionDeniedError(
                "This key may not ask under /admin. `trilith keys create NAME --admin` makes one that may, "
                "and `trilith keys set ID --admin` lets this one.",
                status_code=403,
                code="admin_key_required",
                type="permission_error",
            )
        return await work(key)

    return checked


class Door:
    """Lets callers in, and tells them why not, in OpenAI's words."""

    def __init__(self, platform: Platform) -> None:
        """Take the gateway's collaborators."""
        self._platform = platform
        self._limits = LimitKeeper(platform.limiter)

    async def answer(self, request: Request, work: Work) -> Response:
        """Answer for a known key."""
        try:
            return await work(await caller(self._platform, request))
        except APIStatusError as error:
            return refusal(error)

    async def answer_counted(self, request: Request, work: Work) -> Response:
        """Do the same within the key's limits: it counts as a request, and as one that is under way."""
        told: dict[str, str] = {}
        try:
            exchange = await _identified(self._platform, request)
            try:
                await self._begin(exchange)
                ready = await work(exchange.caller)
            finally:
                answer.tell_rates(exchange, told)
                self._limits.end(exchange, 0)
        except APIStatusError as error:
            ready = refusal(error)
        ready.headers.update(told)
        return ready

    async def _begin(self, exchange: Exchange) -> None:
        key = exchange.caller
        if key.request_rates and (wait := self._limits.begin(exchange)) is not None:
            await wait
        if key.work_rates and (wait := self._limits.work(exchange, 0)) is not None:
            await wait


def refusal(error: APIStatusError, *, text: bool = False) -> Response:
    """Return the answer to an error: OpenAI's object, or with `text` the inference protocol's string."""
    body = {"error": error.message} if text else fault.openai(error)
    ready = reply(body, status=error.status_code)
    ready.headers.update(answer.advice(error))
    return ready


def reply(body: object, *, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(sse.dump(body), status_code=status, media_type="application/json")
