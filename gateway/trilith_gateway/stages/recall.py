"""Stage 4, recall: answers kept in memory, for retries and for identical requests.

A retry is a request with the same idempotency key; identical requests share answers where a model's settings
allow it. Identity is that of the request as the upstream would see it, after masking: two callers who differ
only in the masked data share one answer, and each gets their own data restored into it. A team never sees
another's.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

from trilith.errors import UnprocessableEntityError
from trilith.money import cost
from trilith.types import Usage
from trilith_gateway import sse
from trilith_gateway.exchange import Answer, Exchange

_MOST_BYTES = 64 * 1024 * 1024

_IDEMPOTENT_S = 600.0
"""How long a retry with the same idempotency key gets the first try's answer (seconds)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer."""

    body: bytes
    content_type: str
    expires_at: float
    usage: Usage | None = None


class Cache:
    """Whole answers by request, oldest use thrown out first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._entries: OrderedDict[bytes, Kept] = OrderedDict()
        self._most_bytes = most_bytes
        self._bytes = 0

    def get(self, key: bytes, now: float) -> Kept | None:
        """Return what is kept under a key, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(
        self, key: bytes, body: bytes, content_type: str, expires_at: float, usage: Usage | None = None
    ) -> None:
        """Keep one answer, or a whole stream, until `expires_at` (seconds, monotonic)."""
        if len(body) > self._most_bytes // 16:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = Kept(body, content_type, expires_at, usage)
        self._bytes += len(body)
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= len(self._entries.pop(key).body)


class Recall:
    """Answers from the cache where it can; a stream that was kept is streamed again."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def __call__(self, exchange: Exchange) -> None:
        """Set `exchange.answer` on a hit, else under which keys the answer will be kept.

        Raises:
            UnprocessableEntityError: the idempotency key was used for another request.
        """
        if "inference-header-content-length" in exchange.headers:  # not JSON alone
            return
        release = exchange.target
        if release.cache_ttl_s is None and "idempotency-key" not in exchange.headers:
            return
        if exchange.operation.form or exchange.operation.opaque:  # not JSON
            return
        parts = [exchange.caller.team, release.policy, release.digest, exchange.api.value, exchange.body]
        request = hashlib.sha256(sse.dump(parts)).digest()
        if name := exchange.headers.get("idempotency-key"):
            exchange.keep.append((self._named(exchange.caller.id, name, request), _IDEMPOTENT_S))
        if release.cache_ttl_s is not None:
            exchange.keep.append((request, release.cache_ttl_s))
        for key, _ in exchange.keep:
            found = self._cache.get(key, time.monotonic())
            if found is not None:
                self._answer(exchange, found)
                return

    def _answer(self, exchange: Exchange, kept: Kept) -> None:
        exchange.recalled = True
        headers = {"content-type": kept.content_type}
        if exchange.stream:
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            exchange.answer = Answer(200, headers, events=_again(kept.body))
        else:
            exchange.answer = Answer(200, headers, kept.body)
        price = exchange.target.price
        if kept.usage is not None and price is not None:
            exchange.saved_pico_usd = cost(kept.usage, price)

    def _named(self, caller: str, name: str, request: bytes) -> bytes:
        """Return the key for a request that its caller named; a name stands for one request only."""
        used = hashlib.sha256(sse.dump(["idempotency", caller, name])).digest()
        now = time.monotonic()
        first = self._cache.get(used, now)
        if first is not None and first.body != request:
            raise UnprocessableEntityError(
                "This Idempotency-Key was used for another request. Use a new key for each request.",
                status_code=422,
                code="idempotency_key_reused",
                param="Idempotency-Key",
                type="invalid_request_error",
            )
        self._cache.put(used, request, "", now + _IDEMPOTENT_S)
        return hashlib.sha256(used + request).digest()


async def _again(stream: bytes) -> AsyncIterator[bytes]:
    yield stream
