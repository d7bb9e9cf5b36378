"""The last step over an answer: back into the protocol that the caller speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from trilith.errors import InternalServerError
from trilith_gateway import sse
from trilith_gateway.api import Translator
from trilith_gateway.exchange import Exchange


class Translate:
    """Translates what a dialect has translated to chat on the way in."""

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Return the answer in the caller's protocol."""
        dialect = exchange.operation.dialect
        if dialect is None:
            return body
        return sse.dump(dialect.answer(orjson.loads(body), exchange.model, exchange.raw))

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the stream in the caller's protocol."""
        dialect = exchange.operation.dialect
        return (
            events if dialect is None else _translated(events, dialect.stream(exchange.model, exchange.raw))
        )


async def _translated(blocks: AsyncIterator[bytes], stream: Translator) -> AsyncIterator[bytes]:
    async for block in blocks:
        if b'"error"' not in block:
            if parts := b"".join(map(stream.feed, sse.events(block))):
                yield parts
            continue
        told: list[bytes] = []
        for event in sse.events(block):
            if (error := _failure(event)) is not None:
                if parts := b"".join(told):
                    yield parts
                raise error
            told.append(stream.feed(event))
        if parts := b"".join(told):
            yield parts


def _failure(event: bytes) -> InternalServerError | None:
    """Return the failure that an event of a chat's stream tells of; vLLM sends `[DONE]` after it."""
    chunk = sse.decode(event)
    if chunk is None or not (told := chunk.get("error")):
        return None
    said = told.get("message") if isinstance(told, dict) else told
    return InternalServerError(f"The upstream failed: {said}", status_code=502, type="upstream_error")
