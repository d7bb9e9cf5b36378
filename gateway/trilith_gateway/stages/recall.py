"""Stage 4, recall: answers that were given before, to retries, identical requests, and such as mean the same.

A retry is a request with the same idempotency key; identical requests share answers where a model's settings
allow it. Identity is that of the request as the upstream would see it, after masking: two callers who differ
only in the masked data share one answer, and each gets their own data restored into it. A team never sees
another's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from trilith.errors import UnprocessableEntityError
from trilith.money import UnpricedUsage, cost
from trilith.seams import Decision
from trilith.settings.cache import AnswerCacheSettings, CacheSettings
from trilith_gateway.caching import control, identity, replay
from trilith_gateway.caching.control import Wish
from trilith_gateway.caching.seam import Cache, Kept
from trilith_gateway.caching.semantic import Question, SemanticCache
from trilith_gateway.exchange import Answer, Exchange

_UNWANTED: Decision = ("uncached", "its caller says `no-store`")
_FRESH: Decision = ("uncached", "its caller says `no-cache`; the answer is kept")
_UNFIT: Decision = ("uncached", "it is of a kind that is not kept")
_UNKNOWN: Decision = ("uncached", "what it would be answered from is not known yet")
_UNSURE: Decision = ("uncached", "it may be answered differently each time")
_IDEMPOTENT_S = 600.0
"""How long a retry with the same idempotency key gets the first try's answer (seconds)."""


class Recall:
    """Answers from the caches where it can, else says under which keys the answer will be kept and joined."""

    def __init__(
        self, cache: Cache, semantic: SemanticCache, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._cache = cache
        self._semantic = semantic
        self._clock = clock

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Look up what may be looked up; costs nothing where a model keeps nothing."""
        headers = exchange.headers
        if exchange.target.cache is None and "idempotency-key" not in headers:
            return None
        if "inference-header-content-length" in headers:  # not JSON alone
            return None
        if exchange.operation.form or exchange.operation.opaque:  # not JSON at all
            return None
        return self._recall(exchange, exchange.target.cache, control.read(headers))

    async def _recall(self, exchange: Exchange, settings: CacheSettings | None, wish: Wish) -> None:
        """Set `exchange.answer` on a hit.

        Raises:
            UnprocessableEntityError: the idempotency key was used for another request.
        """
        exchange.cache = "bypass"
        if not wish.stored:
            exchange.trail.append(_UNWANTED)
            return
        if (name := exchange.headers.get("idempotency-key")) is not None:
            exchange.cache = "miss"
            exchange.join = key = await self._named(exchange, name)
            exchange.keep.append((key, _IDEMPOTENT_S, False))
            if self._answers(exchange, await self._cache.get(key), wish, "hit"):
                return
        if settings is not None:
            await self._shared(exchange, settings, wish)

    async def _shared(self, exchange: Exchange, settings: CacheSettings, wish: Wish) -> None:
        release = exchange.target
        version = "" if release.answers_from is None else release.answers_from()
        if version is None or not identity.cacheable(exchange):
            exchange.trail.append(_UNFIT if version is not None else _UNKNOWN)
            return
        certain = identity.deterministic(exchange)
        if settings.only_deterministic and not certain and wish.max_age_s is None:
            exchange.trail.append(_UNSURE)
            return
        exchange.version = version
        key = identity.key(exchange, version)
        if certain and settings.single_flight and not wish.fresh:
            exchange.join = key
            exchange.cache = "miss"
        if not settings.ttl_s:
            return
        exchange.keep.append((key, settings.ttl_s, True))
        words = identity.question(exchange) if isinstance(settings, AnswerCacheSettings) else None
        if words is not None and isinstance(settings, AnswerCacheSettings) and settings.semantic is not None:
            scope = identity.scope(exchange, version)
            exchange.question = question = Question(scope, words, settings.semantic)
        else:
            question = None
        if wish.fresh:
            exchange.trail.append(_FRESH)
            return
        exchange.cache = "miss"
        if self._answers(exchange, await self._cache.get(key), wish, "hit") or question is None:
            return
        async for found in self._semantic.find(question):
            if self._answers(exchange, found, wish, "semantic"):
                return

    def _answers(self, exchange: Exchange, kept: Kept | None, wish: Wish, word: str) -> bool:
        """Answer with what was found, if there is anything that will do."""
        if kept is None:
            return False
        age = max(0.0, self._clock() - kept.begun_at)
        if wish.max_age_s is not None and age > wish.max_age_s:
            return False
        body = _shaped(exchange, kept)
        if body is None:
            return False
        exchange.recalled = True
        exchange.cache = word
        exchange.cache_age_s = age
        if exchange.stream:
            headers = {"content-type": "text/event-stream"}
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            exchange.answer = Answer(200, headers, events=_once(body))
        else:
            content_type = "application/json" if kept.streamed else kept.content_type
            exchange.answer = Answer(200, {"content-type": content_type}, body)
        price = exchange.target.price
        if kept.usage is not None and price is not None:
            with contextlib.suppress(UnpricedUsage):
                exchange.saved_pico_usd = cost(kept.usage, price)
        return True

    async def _named(self, exchange: Exchange, name: str) -> bytes:
        """Return the key for a request that its caller named; a name stands for one request only."""
        used, key = identity.named(exchange, name)
        request = identity.literal(exchange)
        first = await self._cache.get(used)
        if first is not None and first.body != request:
            raise UnprocessableEntityError(
                "This Idempotency-Key was used for another request. Use a new key for each request.",
                status_code=422,
                code="idempotency_key_reused",
                param="Idempotency-Key",
                type="invalid_request_error",
            )
        team, model = exchange.caller.team, exchange.model
        self._cache.put(used, Kept(request, "", team, model, exchange.started_ns / 1e9, _IDEMPOTENT_S))
        return key


def _shaped(exchange: Exchange, kept: Kept) -> bytes | None:
    """Return a kept answer in the form that is asked for; None when it has none."""
    if not exchange.operation.generates:
        return kept.body if kept.streamed == exchange.stream else None
    if not exchange.stream:
        return replay.whole(kept.body, kept.usage) if kept.streamed else kept.body
    if not kept.streamed:
        return replay.stream(kept.body, kept.usage, usage_wanted=exchange.usage_wanted)
    return replay.with_usage(kept.body, kept.usage, wanted=exchange.usage_wanted)


async def _once(stream: bytes) -> AsyncIterator[bytes]:
    yield stream
