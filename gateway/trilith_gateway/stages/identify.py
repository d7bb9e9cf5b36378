"""Stage 1, identify: key -> team and limits. Nothing else of the request is read before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from trilith.errors import AuthenticationError, InternalServerError
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import KeyRing

_PAUSE_S = 0.1
"""How often the database is asked for keys at most, however many strangers come."""


class Identify:
    """Finds out who calls."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        """A look at the database that has not begun yet: it will see what was made until now."""
        self._looked_at = float("-inf")

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set `exchange.key`, or refuse with 401.

        The key comes as `Authorization: Bearer` (OpenAI's way) or as `x-api-key` (Anthropic's).
        """
        if exchange.key is not None:  # a line of a batch, whose key made the batch
            return None
        headers = exchange.headers
        given = headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme != "Bearer" and scheme.lower() != "bearer":
                token = ""
        else:
            token = headers.get("x-api-key", "")
        token = token.strip()
        if not token:
            raise _refused("No API key given. Send it as `Authorization: Bearer tl_...`.")
        exchange.key = self._keys.find(token)
        if exchange.key is not None:
            return None
        if self._keys.may_be_behind(token):
            return self._look_again(exchange, token)
        raise _refused(_UNKNOWN)

    async def _look_again(self, exchange: Exchange, token: str) -> None:
        """Look into the database: the key may have been made a moment ago."""
        if self._next is None:  # all who come until it begins wait for the same look
            self._next = asyncio.create_task(self._look())
            self._next.add_done_callback(_heard)
        try:
            await asyncio.shield(self._next)
        except Exception as error:
            raise InternalServerError(
                "The keys cannot be read at the moment. Try again.",
                status_code=503,
                code="store_unavailable",
                type="server_error",
                retry_after_s=1,
            ) from error
        exchange.key = self._keys.find(token)
        if exchange.key is None:
            raise _refused(_UNKNOWN)

    async def _look(self) -> None:
        async with self._turn:  # one thread at most waits for a database that is away
            await asyncio.sleep(self._looked_at + _PAUSE_S - time.monotonic())
            self._next = None
            self._looked_at = time.monotonic()
            await asyncio.to_thread(self._keys.catch_up)


def _heard(done: asyncio.Task[None]) -> None:
    """Take note of a failure that all who waited for it have left."""
    if not done.cancelled():
        done.exception()


# litellm knows a refused key by the first four words alone.
_UNKNOWN = "Incorrect API key provided: it is not known, or was revoked. `trilith keys create` makes one."


def _refused(message: str) -> AuthenticationError:
    return AuthenticationError(message, status_code=401, code="invalid_api_key", type="invalid_request_error")
