"""Stage 7, protect out: the caller's own data goes back where its placeholders stand, streamed or not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from trilith_gateway import sse
from trilith_gateway.api import Restorer
from trilith_gateway.exchange import Exchange


class ProtectOut:
    """Restores what stage 3 masked."""

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Return the answer with the originals in it; byte for byte the same when nothing was masked."""
        protection = exchange.protection
        if protection is None or not protection.counts or exchange.operation.restore is None:
            return body
        return sse.dump(exchange.operation.restore(orjson.loads(body), protection))

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the stream with the originals in it; untouched when nothing was masked."""
        protection = exchange.protection
        if protection is None or not protection.counts or exchange.operation.restorer is None:
            return events
        return _restored(events, exchange.operation.restorer(protection))


async def _restored(blocks: AsyncIterator[bytes], restorer: Restorer) -> AsyncIterator[bytes]:
    async for block in blocks:
        parts: list[bytes] = []
        for event in sse.events(block):
            value = sse.decode(event)
            if value is None:
                parts.append(event)
            elif event.startswith(b"event:"):  # a protocol whose events say twice what they are
                parts += map(sse.encode_named, restorer.feed(value))
            else:
                parts += map(sse.encode, restorer.feed(value))
        if parts:
            yield b"".join(parts)
