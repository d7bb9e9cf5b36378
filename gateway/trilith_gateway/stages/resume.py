"""Between stages 4 and 5: a request that goes on with a kept answer goes to the upstream that keeps it."""

from __future__ import annotations

from collections.abc import Awaitable

from trilith.errors import BadRequestError
from trilith_gateway import kept
from trilith_gateway.exchange import Exchange
from trilith_gateway.kept import KeptAnswers
from trilith_gateway.routing.routed import RoutedUpstream


class Resume:
    """Checks whose answer it is, and keeps the request to the replica that has it."""

    def __init__(self, kept: KeptAnswers) -> None:
        self._kept = kept

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set `exchange.only`; does nothing for all other requests."""
        if not exchange.operation.keeps or exchange.answer is not None:
            return None
        if exchange.body.get("conversation") is not None and not exchange.target.conversations:
            raise _closed()
        name = exchange.body.get("previous_response_id")
        return None if name is None else self._resume(exchange, name)

    async def _resume(self, exchange: Exchange, name: object) -> None:
        found = await self._kept.find(exchange.caller, name)
        if found is None or kept.holder(exchange.target, found) is None:
            raise _gone()
        if isinstance(exchange.target.upstream, RoutedUpstream):
            exchange.only = found.upstream


def _closed() -> BadRequestError:
    return BadRequestError(
        "`conversation` is not taken by this model: the provider keeps it for all callers alike, and whose "
        "it is cannot be checked. Go on with `previous_response_id`, or have `conversations: true` set for "
        "the model.",
        status_code=400,
        code="conversation_not_allowed",
        param="conversation",
        type="invalid_request_error",
    )


def _gone() -> BadRequestError:
    return BadRequestError(
        "The previous response is not there: no key of this team made it with this model, or who kept it is "
        "gone. Send the conversation itself as `input`.",
        status_code=400,
        code="previous_response_not_found",
        param="previous_response_id",
        type="invalid_request_error",
    )
