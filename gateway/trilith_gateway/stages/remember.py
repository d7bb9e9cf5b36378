"""The first step over an answer: keeps it for stage 4, as the upstream gave it, masks and all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from trilith_gateway import sse
from trilith_gateway.caching.seam import Cache, Kept
from trilith_gateway.caching.semantic import SemanticCache
from trilith_gateway.exchange import Exchange

_MOST_STREAM_BYTES = 4 * 1024 * 1024
"""Longest stream that is kept."""


class Remember:
    """Keeps answers for a retry, and for others where the model's settings allow it."""

    def __init__(self, cache: Cache, semantic: SemanticCache) -> None:
        self._cache = cache
        self._semantic = semantic

    def body(self, exchange: Exchange, body: bytes) -> bytes:
        """Keep a whole answer."""
        answer = exchange.answer
        if exchange.recalled or not exchange.keep or answer is None or answer.status != 200:
            return body
        if "inference-header-content-length" not in answer.headers:  # that is not JSON alone
            self._keep(exchange, body, answer.headers.get("content-type", "application/json"))
        return body

    def events(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Keep a stream when it has come to its proper end, not one that broke off or was left."""
        if exchange.recalled or not exchange.keep:
            return events
        return self._kept(exchange, events)

    async def _kept(self, exchange: Exchange, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        blocks: list[bytes] = []
        size, mark, over = 0, exchange.operation.ends_with, False
        async for block in events:
            size += len(block)
            if size <= _MOST_STREAM_BYTES:
                blocks.append(block)
                if sse.ends(block, mark):  # before it goes out: the caller may ask again at once, or leave
                    over = True
                    self._keep(exchange, b"".join(blocks), "text/event-stream")
            yield block
        if not over and size <= _MOST_STREAM_BYTES:
            self._keep(exchange, b"".join(blocks), "text/event-stream")

    def _keep(self, exchange: Exchange, body: bytes, content_type: str) -> None:
        if not _sound(body, content_type):
            return
        release, ticket, question = exchange.target, exchange.ticket, exchange.question
        now = release.answers_from
        moved = now is not None and exchange.version is not None and now() != exchange.version
        for key, ttl_s, shared in exchange.keep:
            if shared and (moved or exchange.fell_back):
                continue  # it is not from what the key says
            if ticket is not None and not ticket.pays and key == exchange.join:
                continue  # the one who pays keeps it
            kept = Kept(
                body,
                content_type,
                team=exchange.caller.team,
                model=exchange.model,
                begun_at=exchange.started_ns / 1e9,
                ttl_s=ttl_s,
                usage=exchange.usage,
                question=question.text if shared and question is not None else None,
            )
            self._cache.put(key, kept)
            if shared and question is not None:
                self._semantic.add(question, key)


def _sound(body: bytes, content_type: str) -> bool:
    """Say whether an answer is one to give again: some upstreams tell of a failure within a 200."""
    if content_type == "text/event-stream":
        return b'"error"' not in body or not any(
            isinstance(event := sse.decode(part), dict) and event.get("error") for part in sse.events(body)
        )
    try:
        answer = orjson.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict | list) and not (isinstance(answer, dict) and answer.get("error"))
