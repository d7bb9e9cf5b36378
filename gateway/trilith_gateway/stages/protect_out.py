"""Stage 7, protect out: the caller's own data goes back where its placeholders stand, streamed or not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import orjson

from trilith_gateway import sse
from trilith_gateway.api import Restorer
from trilith_gateway.exchange import Exchange
from trilith_gateway.stages.recall import Cache

_MOST_STREAM_BYTES = 4 * 1024 * 1024
"""Longest stream that is kept."""


class Remember:
    """Keeps an answer for stage 4, as the upstream gave it: masked."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Keep the answer for a retry, and for others where the model's settings allow it."""
        if exchange.recalled or exchange.answer is None:
            return body
        if "inference-header-content-length" in exchange.answer.headers:
            return body  # not JSON alone; the cache keeps no more than a content type beside a body
        content_type = exchange.answer.headers.get("content-type", "application/json")
        for key, ttl_s in exchange.keep:
            self._cache.put(key, body, content_type, time.monotonic() + ttl_s, exchange.usage)
        return body

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Keep the stream when it has come to its proper end, not one that broke off or was left."""
        if exchange.recalled or not exchange.keep:
            return events
        return self._kept(exchange, events)

    async def _kept(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        blocks: list[bytes] = []
        size = 0
        async for block in events:
            size += len(block)
            if size <= _MOST_STREAM_BYTES:
                blocks.append(block)
            yield block
        if size <= _MOST_STREAM_BYTES:
            for key, ttl_s in exchange.keep:
                until = time.monotonic() + ttl_s
                self._cache.put(key, b"".join(blocks), "text/event-stream", until, exchange.usage)


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
