"""Stage 2, admit: rate limit, size and shape of the request, and the reservation of its upper bound."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from trilith.errors import PermissionDeniedError
from trilith.money import Price, cost
from trilith.types import Kind, Usage
from trilith_gateway import charge, media, packing, request
from trilith_gateway.api import Api, spoken_by
from trilith_gateway.budget import Budgets, Exhausted
from trilith_gateway.exchange import Exchange, budgets_unavailable, model_not_found, store_unavailable
from trilith_gateway.limits.keeper import LimitKeeper
from trilith_gateway.release import Release, ReleaseTable
from trilith_gateway.routing import cascade
from trilith_gateway.routing.condition import routed, stands_in
from trilith_gateway.routing.pin import HEADER, pinned
from trilith_gateway.shared import LeasedBudgets
from trilith_gateway.store.amount import capped
from trilith_gateway.store.journal import Record

Hold = Callable[[Record], None]


class Admit:
    """Lets a request in, or says why not."""

    def __init__(
        self,
        releases: ReleaseTable,
        limits: LimitKeeper,
        budgets: Budgets | LeasedBudgets,
        hold: Hold,
        max_body_bytes: int,
    ) -> None:
        self._releases = releases
        self._limits = limits
        self._budgets = budgets
        self._hold = hold
        self._max_body_bytes = max_body_bytes

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Read and check the body, find the release, hold the money."""
        if exchange.caller.request_rates and (wait := self._limits.begin(exchange)) is not None:
            return self._limited(exchange, wait)
        return self._read(exchange)

    async def _limited(self, exchange: Exchange, limiting: Awaitable[None]) -> None:
        await limiting
        if (wait := self._read(exchange)) is not None:
            await wait

    def _read(self, exchange: Exchange) -> Awaitable[None] | None:
        if "content-encoding" in exchange.headers:
            packing.check(exchange.headers["content-encoding"])
        raw = exchange.read_body(self._max_body_bytes)
        if isinstance(raw, bytes):
            return self._admit(exchange, raw)
        return self._wait(exchange, raw)

    async def _wait(self, exchange: Exchange, reading: Awaitable[bytes]) -> None:
        if (wait := self._admit(exchange, await reading)) is not None:
            await wait

    def _admit(self, exchange: Exchange, raw: bytes) -> Awaitable[None] | None:
        operation = exchange.operation
        exchange.raw = raw
        exchange.body_bytes = len(raw)
        if "content-encoding" in exchange.headers:
            encoding = exchange.headers["content-encoding"]
            exchange.raw = raw = packing.unpacked(raw, encoding, self._max_body_bytes)
            exchange.body_bytes = len(raw)
        exchange.body = body = operation.parse(raw, exchange.headers)
        name = exchange.model_in_path or body["model"]
        release = self._releases.find(name)
        if release is None or release.kind not in operation.kinds or not exchange.caller.allows(name):
            raise model_not_found(name, exchange.api)
        exchange.model = name
        exchange.stream = body.get("stream") is True
        if HEADER in exchange.headers:
            release = pinned(exchange, release, self._releases.find)
        elif release.routes:
            release = routed(exchange, release, self._releases.find)
        exchange.release = release = release.priced(batched=exchange.batched)
        if release.protocol != "openai":
            exchange.operation = operation = spoken_by(operation, release.protocol)
        if operation.dialect is not None:
            exchange.body = body = operation.dialect.ask(body)
            exchange.masked = True  # what goes on is not what came
        if exchange.stream:
            exchange.usage_wanted = (body.get("stream_options") or _NOTHING).get("include_usage") is True
        if exchange.caller.work_rates:
            used = upper_usage(exchange, release)
            wait = self._limits.work(exchange, used.input_tokens + used.output_tokens)
            if wait is not None:
                return self._admit_later(exchange, release, wait)
        self.reserve(exchange, release)
        exchange.admitted = True
        return None

    async def _admit_later(self, exchange: Exchange, release: Release, limiting: Awaitable[None]) -> None:
        await limiting
        self.reserve(exchange, release)
        exchange.admitted = True

    def reserve(self, exchange: Exchange, release: Release) -> None:
        """Hold the most that `release`, or what a budget puts in its place, may charge for the request.

        Raises:
            BudgetExceededError: a budget of the key, its team or its org does not have it.
            PermissionDeniedError: the release has no price, and the key stands under a budget.
            InternalServerError: the budgets cannot be asked, or the journal takes nothing.
        """
        key, owed = exchange.caller, charge.owed(exchange)
        if exchange.paid:
            return
        if release.price is None:
            if key.budgets:
                raise PermissionDeniedError(
                    f"The model {release.model!r} has no price, so it cannot be held to this key's budget. "
                    "Give it a `price` in the settings, or use a key without a budget.",
                    status_code=403,
                    code="model_unpriced",
                )
            return
        bound = self._most(exchange, release, release.price)
        now = time.time()
        bound += owed
        if key.budgets:
            bound = self._reserve(exchange, bound, owed, now)
        exchange.reserved, exchange.reserved_at = bound, now
        record: Record = {
            "t": "reserve",
            "id": exchange.id,
            "key_id": key.id,
            "amount_pico_usd": capped(bound),
            "at": now,
        }
        if exchange.admitted:  # moved to another release
            record["again"] = True
        try:
            self._hold(record)
        except OSError as error:
            self._budgets.settle(key, bound, 0, now)
            exchange.reserved = None
            raise store_unavailable() from error

    def _most(self, exchange: Exchange, release: Release, price: Price) -> int:
        """Return the most that a request can cost at a release and on the way to it (pico-USD)."""
        bound = upper_bound(exchange, release, release.bound or price)
        if release.steps and not exchange.admitted:  # a request that moves on asks nobody on the way
            bound += self._on_the_way(exchange, release)
        return bound

    def _on_the_way(self, exchange: Exchange, release: Release) -> int:
        """Return the most that the steps of a cascade can cost, all of them asked in vain (pico-USD)."""
        asked = cascade.steps(exchange, release.steps, self._releases.find)
        paid = [one for step in asked for one in step.releases]
        return sum(
            upper_bound(exchange, one, one.bound or one.price) for one in paid if one.price is not None
        )

    def _instead(self, exchange: Exchange, other: Release | None) -> int | None:
        """Return the most that `other` may charge instead (pico-USD); None when it may not answer."""
        if other is None or other.price is None or not stands_in(exchange, other):
            return None
        return self._most(exchange, other, other.price)

    def _reserve(self, exchange: Exchange, bound: int, owed: int, now: float) -> int:
        """Ask the budgets; returns what is reserved (pico-USD), what is `owed` already included."""
        key = exchange.caller
        try:
            may_degrade = key.shares and exchange.pinned is None
            if may_degrade and (budget := self._budgets.degrades(key, bound, now)) is not None:
                other = self._releases.find(budget.degrade_to)
                other = other and other.priced(batched=exchange.batched)
                cheaper = self._instead(exchange, other)
                if other is not None and cheaper is not None and cheaper + owed < bound:
                    exchange.release, bound = other, cheaper + owed
                    exchange.fell_back = True
                    exchange.tag = None  # its replicas have their own
                    exchange.budget = f"degrade {budget.account}"
            self._budgets.reserve(key, bound, now)
        except Exhausted as error:
            exchange.budget = f"exhausted {error.budget.account}"
            raise
        except OSError as error:
            raise budgets_unavailable() from error
        if key.shares and not exchange.budget:
            with contextlib.suppress(OSError):  # the reservation stands, told or not
                if (told := self._budgets.soft(key, now)) is not None:
                    exchange.budget = f"soft {told.account}"
        return bound


def upper_bound(exchange: Exchange, release: Release, price: Price) -> int:
    """Return the most that this request can cost (pico-USD).

    What the provider's own tools find is read as well, and pictures and sound may be priced by the token.
    That counts here alone and not against limits of tokens, since it is far more than what comes of it.
    """
    used, body = upper_usage(exchange, release), exchange.body
    searches = 0
    if "tools" in body or "web_search_options" in body:
        uses, searches = request.hosted(body)
        used += Usage(_TOOLS_TOKENS + uses * release.reference_tokens, requests=0)
    if (tokens := _BY_TOKENS.get(exchange.api)) is not None:
        used += tokens(body, release.reference_tokens)
    amount = cost(used, price)
    if price.cpu_hour:
        amount += price.cpu_hour * _MOST_CPU_S // 3600
    return amount + searches * (price.search or 0)


def upper_usage(exchange: Exchange, release: Release) -> Usage:
    """Return the most that this request can use.

    A token is at least one byte of the request as it is sent on, and a request asks for at most
    `max_tokens` per choice and prompt. What a request only refers to is in no byte of it: each picture, sound
    or file has an allowance, and a conversation that the upstream keeps may fill the model's window, beyond
    which they do not come together. A RAG request grows by its passages, however many: its own allowance
    covers them, since its prompt has a longest length.
    """
    if release.kind is Kind.PREDICTOR and not exchange.operation.scores:
        return Usage(rows=1)  # asked on the way to an answer, about one text
    more = _RAG_PROMPT_TOKENS if release.kind is Kind.RAG else 0
    if exchange.api in _WORDED:
        parts, stored = request.references(exchange.body)
        if parts:
            more += parts * release.reference_tokens
        if stored:
            more += release.context_tokens or _STORED_TOKENS
        if more and release.context_tokens is not None:
            more = min(more, release.context_tokens)
    return exchange.operation.bound(exchange.body, exchange.body_bytes + more, release.max_output_tokens)


_RAG_PROMPT_TOKENS = 8192
"""More than the passages and the instructions of a RAG prompt can come to."""

_WORDED = frozenset({Api.CHAT, Api.COMPLETION, Api.MESSAGE, Api.RESPONSE})
"""Operations whose requests may refer to what they do not hold."""
_STORED_TOKENS = 131_072
"""What a stored conversation may come to where the settings do not say how long the model's window is."""
_TOOLS_TOKENS = 1024
"""More than the words by which providers tell a model how to use tools: Anthropic adds 300 to 600."""
_BY_TOKENS: Mapping[Api, Callable[[dict[str, Any], int], Usage]] = {
    Api.IMAGE: media.tokens_of_images,
    Api.IMAGE_EDIT: media.tokens_of_images,
    Api.IMAGE_VARIATION: media.tokens_of_images,
    Api.SPEECH: media.tokens_of_speech,
    Api.TRANSCRIPTION: media.tokens_of_recording,
    Api.TRANSLATION: media.tokens_of_recording,
}
"""What operations use where their price is by the token, which they count only when they are done."""

_MOST_CPU_S = 10
"""More CPU time than one call of a predictor takes (seconds); what takes longer is charged all the same."""

_NOTHING: dict[str, object] = {}
