"""Stage 1, identify: key -> team and limits. Nothing else of the request is read before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from trilith.errors import AuthenticationError, InternalServerError
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import KeyRing


class Identify:
    """Finds out who calls."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self._looking: asyncio.Task[None] | None = None

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
        if self._looking is not None or self._keys.may_be_behind(token):
            return self._look_again(exchange, token)
        raise _refused(_UNKNOWN)

    async def _look_again(self, exchange: Exchange, token: str) -> None:
        """Look into the database: the key may have been made a moment ago."""
        if self._looking is None:  # all who come meanwhile wait for the same look
            self._looking = asyncio.create_task(asyncio.to_thread(self._keys.reload))
            self._looking.add_done_callback(self._looked)
        try:
            await asyncio.shield(self._looking)
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

    def _looked(self, done: asyncio.Task[None]) -> None:
        self._looking = None


# litellm knows a refused key by the first four words alone.
_UNKNOWN = "Incorrect API key provided: it is not known, or was revoked. `trilith keys create` makes one."


def _refused(message: str) -> AuthenticationError:
    return AuthenticationError(message, status_code=401, code="invalid_api_key", type="invalid_request_error")
