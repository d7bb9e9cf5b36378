"""One line's turn: asked for when others leave room, and again when that may help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from json import JSONDecodeError

import orjson

from trilith_gateway.api import Api
from trilith_gateway.batch import line as lines
from trilith_gateway.batch.line import Line, Outcome
from trilith_gateway.batch.table import Batch
from trilith_gateway.exchange import Exchange, too_large
from trilith_gateway.key import Key
from trilith_gateway.platform import Platform
from trilith_gateway.wire import route

ENDPOINTS = frozenset(
    {Api.CHAT, Api.COMPLETION, Api.EMBEDDING, Api.RESPONSE, Api.RERANK, Api.MODERATION, Api.PREDICT}
)
"""Operations that a batch may ask for."""

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_MOST_TRIES = 6
_MOST_REST_S = 30.0
_MOST_REFUSALS = 25
"""How often a line is tried again whose budget may only be held by other lines."""
_CALM_S = 0.05
_MOST_CALM_S = 5.0
"""Longest that one line waits for others to leave room (seconds): a batch must end some day."""


class _Collected:
    """Takes an answer that nobody is connected for."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.body = b""

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def start(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers

    def write(self, data: bytes) -> None:
        self.body += data

    def finish(self) -> None:
        pass


class Turn:
    """Sends lines through the pipeline; all batches of a process share it."""

    def __init__(self, platform: Platform) -> None:
        """Take the gateway's collaborators."""
        self._platform = platform
        self._open = 0
        """Lines under way."""

    async def take(
        self, batch: Batch, line: Line, attempt: int, given_up: Callable[[], bool], *, paid: bool = False
    ) -> Outcome | None:
        """Return what became of a line; None when it was given up before its next try.

        Args:
            batch: The line's batch.
            line: The request.
            attempt: The number of its first try in this run.
            given_up: Says whether to try no more.
            paid: Whether that try is charged already, and only its outcome was lost: the line is asked under
                its name again, and costs its key nothing more.
        """
        name = f"batch_req_{batch.id[6:22]}{line.number:08d}"
        tries = refused = 0
        while True:
            if not await self._calm(given_up):
                return None
            key = self._platform.keys.get(batch.key_id)
            if key is None:
                return lines.unanswered(
                    name, line.custom_id, "invalid_api_key", "The key that made the batch was revoked."
                )
            exchange, got = await self._ask(batch, line, attempt, key, paid=paid)
            tries += exchange.admitted
            rest = self._rest_s(exchange, got, tries)
            refused += got.status == 429 and _code(got.body) == "insufficient_quota"
            if rest is None or refused > _MOST_REFUSALS:
                return lines.answered(name, line.custom_id, got.status, exchange.request_id, got.body)
            if not paid:
                attempt += exchange.admitted  # what was not admitted stands in no ledger
            await asyncio.sleep(rest)

    async def _calm(self, given_up: Callable[[], bool]) -> bool:
        """Wait while this process has much else to do; false when the line is given up meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _MOST_CALM_S
        while not given_up():
            others = self._platform.metrics.open - self._open
            if others < self._platform.settings.batches.yield_above or loop.time() >= until:
                return True
            await asyncio.sleep(_CALM_S)
        return False

    async def _ask(
        self, batch: Batch, line: Line, attempt: int, key: Key, *, paid: bool
    ) -> tuple[Exchange, _Collected]:
        found = route.find(line.url.encode())
        if found is None:
            raise ValueError(f"{line.url!r} is no endpoint")  # the batch was checked for it

        def read(most_bytes: int) -> bytes:
            if len(line.body) > most_bytes:
                raise too_large(most_bytes)
            return line.body

        exchange = Exchange(found[0], found[1], {"content-type": "application/json"}, read, found[2])
        exchange.id = exchange.request_id = f"{batch.id}-{line.number}-{attempt}"
        exchange.key = key
        exchange.batched = True
        exchange.paid = paid
        got = _Collected()
        self._open += 1
        try:
            await self._platform.front.run(exchange, got)
        finally:
            self._open -= 1
        return exchange, got

    def _rest_s(self, exchange: Exchange, got: _Collected, tries: int) -> float | None:
        """Return how long to wait before the next try (seconds); None: this answer is the last word."""
        if got.status not in _AGAIN or tries >= _MOST_TRIES:
            return None
        told = _seconds(got.headers)
        if exchange.admitted:
            backoff = min(_MOST_REST_S, 0.5 * 2**tries) * (0.5 + random.random() / 2)
            return backoff if told is None else min(told, _MOST_REST_S)
        if _code(got.body) == "insufficient_quota":  # what the other lines hold may come back
            return 0.2 if self._open else None
        if got.headers.get("x-should-retry") == "false":  # it asks for more than its key's limits ever give
            return None
        return min(told or 1.0, _MOST_REST_S)


def _seconds(headers: dict[str, str]) -> float | None:
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def _code(body: bytes) -> object:
    try:
        return (orjson.loads(body).get("error") or {}).get("code")
    except (JSONDecodeError, AttributeError):
        return None
