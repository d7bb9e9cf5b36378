"""Stage 2, admit: rate limit, size and shape of the request, and the reservation of its upper bound."""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable

from trilith.errors import APIStatusError, PermissionDeniedError, RateLimitError
from trilith.money import Price, cost
from trilith.types import Kind
from trilith_gateway.api import spoken_by
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange, model_not_found, store_unavailable, too_large
from trilith_gateway.limit import RateLimiter
from trilith_gateway.release import Release, ReleaseTable
from trilith_gateway.request import refuse
from trilith_gateway.shared import LeasedBudgets, SharedRateLimiter
from trilith_gateway.store.journal import Record

Hold = Callable[[Record], None]


class Admit:
    """Lets a request in, or says why not."""

    def __init__(
        self,
        releases: ReleaseTable,
        limiter: RateLimiter | SharedRateLimiter,
        budgets: Budgets | LeasedBudgets,
        hold: Hold,
        max_body_bytes: int,
    ) -> None:
        self._releases = releases
        self._limiter = limiter
        self._budgets = budgets
        self._hold = hold
        self._max_body_bytes = max_body_bytes

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Read and check the body, find the release, hold the money."""
        self._limit(exchange)
        raw = exchange.read_body(self._max_body_bytes)
        if isinstance(raw, bytes):
            self._admit(exchange, raw)
            return None
        return self._wait(exchange, raw)

    async def _wait(self, exchange: Exchange, reading: Awaitable[bytes]) -> None:
        self._admit(exchange, await reading)

    def _admit(self, exchange: Exchange, raw: bytes) -> None:
        operation = exchange.operation
        exchange.raw = raw
        exchange.body_bytes = len(raw)
        if "content-encoding" in exchange.headers:
            exchange.raw = raw = self._unpacked(raw, exchange.headers["content-encoding"])
            exchange.body_bytes = len(raw)
        exchange.body = body = operation.parse(raw, exchange.headers)
        name = exchange.model_in_path or body["model"]
        release = self._releases.find(name)
        if release is None or release.kind not in operation.kinds or not exchange.caller.allows(name):
            raise model_not_found(name, exchange.api)
        if exchange.batched and release.batched is not None:
            release = release.batched
        exchange.model, exchange.release = name, release
        if release.protocol != "openai":
            exchange.operation = operation = spoken_by(operation, release.protocol)
        if operation.dialect is not None:
            exchange.body = body = operation.dialect.ask(body)
            exchange.masked = True  # what goes on is not what came
        if body.get("stream") is True:
            exchange.stream = True
            exchange.usage_wanted = (body.get("stream_options") or _NOTHING).get("include_usage") is True
        self.reserve(exchange, release)
        exchange.admitted = True

    def _unpacked(self, raw: bytes, encoding: str) -> bytes:
        """Return a body as it was before its sender packed it; what it comes to is bounded like any other."""
        if encoding in ("identity", ""):
            return raw
        if encoding.lower() not in ("gzip", "x-gzip"):
            raise APIStatusError(
                f"The body's Content-Encoding is {encoding[:40]!r}; expected gzip, or none.",
                status_code=415,
                code="unsupported_encoding",
                type="invalid_request_error",
            )
        unpacker = zlib.decompressobj(wbits=31)
        try:
            found = unpacker.decompress(raw, self._max_body_bytes + 1)
        except zlib.error:
            refuse("The body is not gzip, as its Content-Encoding says.", None)
        if len(found) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        if not unpacker.eof or unpacker.unused_data:
            refuse("The body breaks off, or more than one gzip stream stands in it.", None)
        return found

    def _limit(self, exchange: Exchange) -> None:
        key = exchange.caller
        if key.requests_per_minute is None:
            return
        exchange.allowance = self._limiter.take(key.id, key.requests_per_minute, time.monotonic())
        if not exchange.allowance.allowed:
            raise RateLimitError(
                f"This key may send {key.requests_per_minute} requests per minute. "
                f"Try again in {exchange.allowance.retry_after_s:.1f} s.",
                status_code=429,
                code="rate_limit_exceeded",
                type="rate_limit_exceeded",
                retry_after_s=exchange.allowance.retry_after_s,
            )

    def reserve(self, exchange: Exchange, release: Release) -> None:
        """Hold the most that `release` may charge for the request.

        Raises:
            BudgetExceededError: the key's budget does not have it.
            PermissionDeniedError: the release has no price, and the key a budget.
        """
        key = exchange.caller
        if release.price is None:
            if key.budget_pico_usd is not None:
                raise PermissionDeniedError(
                    f"The model {release.model!r} has no price, so it cannot be held to this key's budget. "
                    "Give it a `price` in the settings, or use a key without a budget.",
                    status_code=403,
                    code="model_unpriced",
                )
            return
        bound = upper_bound(exchange, release, release.price)
        now = time.time()
        self._budgets.reserve(key, bound, now)
        exchange.reserved = bound
        record: Record = {
            "t": "reserve",
            "id": exchange.id,
            "key_id": key.id,
            "amount_pico_usd": bound,
            "at": now,
        }
        try:
            self._hold(record)
        except OSError as error:
            self._budgets.settle(key, bound, 0, now)
            exchange.reserved = None
            raise store_unavailable() from error


def upper_bound(exchange: Exchange, release: Release, price: Price) -> int:
    """Return the most that this request can cost (pico-USD).

    A token is at least one byte of the request as it is sent on, and a request asks for at most
    `max_tokens` per choice. A RAG request grows by its passages: they are covered by its own allowance.
    """
    passages = _RAG_PROMPT_TOKENS if release.kind is Kind.RAG else 0
    used = exchange.operation.bound(exchange.body, exchange.body_bytes + passages, release.max_output_tokens)
    return cost(used, price)


_RAG_PROMPT_TOKENS = 8192
"""More than the passages and the instructions of a RAG prompt can come to."""

_NOTHING: dict[str, object] = {}
