"""Stage 6, call: sends the call, and takes the answer; `reading` has what is read of it on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from json import JSONDecodeError
from typing import Any

import orjson

from trilith.errors import APIConnectionError, APIError, InternalServerError
from trilith.seams import Call as UpstreamCall
from trilith.seams import Reply, Upstream
from trilith_gateway import charge, deadline, decision, reading
from trilith_gateway.caching.flight import Flights
from trilith_gateway.exchange import Answer, Exchange
from trilith_gateway.release import Release, ReleaseTable
from trilith_gateway.routing import cause
from trilith_gateway.routing.condition import stands_in
from trilith_gateway.routing.gate import Gate, Ticket
from trilith_gateway.routing.routed import RoutedUpstream
from trilith_gateway.rule import Rule, Try
from trilith_gateway.trace import Attempt
from trilith_gateway.upstream.http import HttpReply, HttpUpstream
from trilith_gateway.usage import Tally

_PASSED_ON = frozenset(
    {
        "content-type",
        "content-encoding",
        "content-disposition",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
        "x-trilith-cascade",
        "inference-header-content-length",
        *(
            f"anthropic-ratelimit-{what}-{told}"
            for what in ("requests", "tokens", "input-tokens", "output-tokens")
            for told in ("limit", "remaining", "reset")
        ),
    }
)


class Call:
    """Asks the release's upstream, once more if the first connection failed before anything was sent back."""

    def __init__(
        self, releases: ReleaseTable, move: Callable[[Exchange, Release], None], flights: Flights
    ) -> None:
        """Take the collaborators.

        Args:
            releases: The table of releases.
            move: What moves an exchange to another one (`Fallback.move`).
            flights: The calls under way that others may join.
        """
        self._releases = releases
        self._move = move
        self._flights = flights

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set `exchange.answer`."""
        if exchange.answer is not None or exchange.call is None:
            return None
        release = exchange.target
        if release.fallbacks or release.gate is not None:
            return self._ask_in_turn(exchange, release.fallbacks)
        upstream = release.upstream
        if exchange.head_until is not None:
            return self._ask(exchange, upstream, exchange.call)
        if type(upstream) is HttpUpstream and exchange.join is None:
            begun = _begun(exchange, upstream, exchange.call)
            if begun is not None:
                return begun
        return self._asked(exchange, upstream, exchange.call)

    async def _ask_in_turn(self, exchange: Exchange, others: Sequence[str]) -> None:
        """Ask the model, then its fallbacks one after the other while the answer is one they may better."""
        found = [release for name in others if (release := self._releases.find(name)) is not None]
        left = [one.priced(batched=exchange.batched) for one in found if stands_in(exchange, one)]
        if _pinned(exchange):
            left = []
        while True:
            error: APIError | None = None
            try:
                if exchange.target.gate is not None:
                    exchange.place = await enter(exchange, exchange.target.gate)
                await self._ask(exchange, exchange.target.upstream, _ready(exchange))
            except (APIConnectionError, InternalServerError) as failure:
                error = failure
                exchange.trail.append(("fallback", exchange.target.model, decision.cause(failure)))
            if not left or (error is None and not _another_may(exchange)):
                if error is not None:
                    raise error
                return
            if error is None and exchange.answer is not None:
                exchange.trail.append(("fallback", exchange.target.model, exchange.answer.status))
            await leave(exchange)
            self._move(exchange, left.pop(0))

    async def _ask(self, exchange: Exchange, upstream: Upstream, call: UpstreamCall) -> None:
        if exchange.head_until is None:
            await self._asked(exchange, upstream, call)
        else:
            await deadline.by(exchange.head_until, self._asked(exchange, upstream, call))

    async def _asked(self, exchange: Exchange, upstream: Upstream, call: UpstreamCall) -> None:
        sent_at = time.perf_counter()
        release = exchange.target
        exchange.upstream = release.place
        try:
            if exchange.join is None:
                reply = await send(exchange, upstream, call)
            else:
                reply = await self._join(exchange, exchange.join, upstream, call)
        except APIConnectionError as error:
            _torn(exchange, error.received)
            exchange.upstream = error.upstream or exchange.upstream
            raise
        if release.tries_again:
            exchange.upstream = getattr(reply, "upstream", "") or exchange.upstream
        await _take(exchange, reply, sent_at)

    async def _join(self, exchange: Exchange, key: bytes, upstream: Upstream, call: UpstreamCall) -> Reply:
        """Listen to an identical call that is under way, or begin one that others may join.

        Where the call fails, those who only listened to it try again, once and together.
        """

        def begin() -> Awaitable[Reply]:
            return send(exchange, upstream, call)

        ticket = exchange.ticket = self._flights.board((key, exchange.stream), begin)
        ticket.until = exchange.until
        if ticket.led:
            await ticket.head()
            return ticket
        exchange.cache = "joined"
        try:
            await ticket.head()
            if ticket.status not in _OVERLOADED:
                return ticket
        except (APIConnectionError, InternalServerError):
            pass
        await ticket.aclose()
        ticket = exchange.ticket = self._flights.board((key, exchange.stream), begin)
        ticket.until = exchange.until
        if ticket.led:
            exchange.cache = "miss"
        await ticket.head()
        return ticket


class Begun:
    """A call that is on its way. It can be awaited; who would rather not may `listen` to its reply."""

    __slots__ = ("_call", "_exchange", "_sent_at", "_upstream", "noted", "reply")

    def __init__(
        self,
        exchange: Exchange,
        upstream: HttpUpstream,
        call: UpstreamCall,
        reply: HttpReply,
        sent_at: float,
        noted: Attempt | None,
    ) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._call = call
        self._sent_at = sent_at
        self.reply = reply
        self.noted = noted
        """The try, for the request's spans."""

    def take(self) -> bool | None:
        """Set `exchange.answer` if the whole answer is there.

        Returns:
            Whether it is; None: not yet, and nobody need read it meanwhile. False: the rest must be awaited.
        """
        reply, exchange = self.reply, self._exchange
        if reply.status < 200:
            return False
        if exchange.first_byte_at is None:
            exchange.first_byte_at = time.perf_counter()
            exchange.reply = reply  # who leaves now leaves an answer that has begun
        if reply.status < 400 and (exchange.operation.opaque or _streams(reply.headers)):
            return False
        if (body := reply.whole()) is None:
            return None if reply.bounded else False
        headers = _head(exchange, reply, self._sent_at)
        if self.noted is not None:
            self.noted.end(reply.status)
        exchange.answer = _whole(exchange, reply, headers, body)
        return True

    def leave(self) -> None:
        """Give the call up: the caller has gone."""
        self.reply.abort()
        if self.noted is not None:
            self.noted.end(None, asyncio.CancelledError())

    def __await__(self) -> Generator[Any, None, None]:
        return self._rest().__await__()

    async def _rest(self) -> None:
        exchange = self._exchange
        try:
            reply = await send(exchange, self._upstream, self._call, self)
        except APIConnectionError as error:
            _torn(exchange, error.received)
            raise
        await _take(exchange, reply, self._sent_at)


async def _take(exchange: Exchange, reply: Reply, sent_at: float) -> None:
    """Set `exchange.answer` from a reply whose head is there."""
    headers = _head(exchange, reply, sent_at)
    if reply.status < 400:
        if _streams(headers):
            if not (exchange.target.counts_stream_usage and exchange.operation.generates):
                exchange.tally = Tally()
            headers["cache-control"] = "no-cache"
            headers["x-accel-buffering"] = "no"
            exchange.answer = Answer(reply.status, headers, events=reading.watch(exchange, reply))
            return
        if exchange.operation.opaque:
            exchange.answer = Answer(reply.status, headers, events=reply.chunks(), opaque=True)
            return
    body = reply.whole() if type(reply) is HttpReply else None
    if body is None:
        body = await _read_whole(exchange, reply)
    exchange.waited_s = time.perf_counter() - sent_at
    exchange.answer = _whole(exchange, reply, headers, body)


def _head(exchange: Exchange, reply: Reply, sent_at: float) -> dict[str, str]:
    """Take a reply's head; returns the headers that are passed on."""
    exchange.reply = reply
    now = time.perf_counter()
    if exchange.first_byte_at is None:
        exchange.first_byte_at = now
    exchange.waited_s = now - sent_at
    if 300 <= reply.status < 400:  # it could lead anywhere, and is no answer to charge for
        raise APIConnectionError("the upstream answered with a redirect, which is not followed")
    given = reply.headers
    headers = {name: value for name, value in given.items() if name in _PASSED_ON}
    theirs = given.get("x-request-id") or given.get("request-id")  # the latter is Anthropic's
    if theirs is not None and theirs != exchange.request_id:
        headers["x-upstream-request-id"] = theirs
    return headers


def _streams(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").startswith("text/event-stream")


def _whole(exchange: Exchange, reply: Reply, headers: dict[str, str], body: bytes) -> Answer:
    if reply.status < 400:
        reading.read(exchange, reply, body)
        if exchange.trace is not None and exchange.trace.content is not None:
            exchange.trace.content.hear(body)
    return Answer(reply.status, headers, body)


async def _read_whole(exchange: Exchange, reply: Reply) -> bytes:
    parts: list[bytes] = []
    try:
        async for chunk in reply.chunks():
            parts.append(chunk)
    except APIConnectionError:
        if reply.status < 400:
            _torn(exchange, b"".join(parts))
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _torn(exchange: Exchange, received: bytes) -> None:
    """Note an answer that broke off in the middle: what it had reported is charged."""
    if received:
        exchange.rule = Rule.BROKEN
        if (told := charge.reported(received, 0)) is not None:
            exchange.usage = exchange.operation.read_usage(told)


async def leave(exchange: Exchange) -> Try:
    """Give up what an upstream did, because another model shall do better, and return the try that it was."""
    if exchange.reply is not None:
        await exchange.reply.aclose()
    if exchange.place is not None:
        exchange.place.leave()
    noted = _give_up(exchange)
    if exchange.ticket is not None:
        await exchange.ticket.aclose()
    exchange.join = exchange.ticket = None  # another model's call is another call
    return noted


def _give_up(exchange: Exchange) -> Try:
    answer, usage = exchange.answer, exchange.usage
    status = answer.status if answer is not None else 0 if usage is None else 502
    if usage is None and answer is not None and b'"usage"' in answer.body:
        told = charge.reported(answer.body, answer.status)
        usage = exchange.operation.read_usage(told) if told is not None else None
    if usage is not None and exchange.ticket is not None:  # of those who listened, one pays
        _, usage = exchange.ticket.bill(Rule.USAGE, usage)
    if usage is None or not usage.requests:
        return charge.note(exchange, Rule.FAILED, status)
    return charge.note(exchange, exchange.rule or Rule.USAGE, status, usage=usage)


def _ready(exchange: Exchange) -> UpstreamCall:
    if exchange.call is None:
        raise RuntimeError("the request is not routed yet")
    return exchange.call


async def enter(exchange: Exchange, gate: Gate) -> Ticket:
    """Wait until a model has a place, and return it; whoever asked gives it back."""
    key = exchange.caller
    found = gate.enter(key.team, key.weight, batch=key.priority == "batch")
    if not isinstance(found, Ticket):
        came = time.perf_counter()
        try:
            until = exchange.head_until
            found = await (found if until is None else deadline.by(until, found))
        finally:
            waited_s = time.perf_counter() - came
            exchange.queued_s += waited_s
            exchange.trail.append(("queue", exchange.target.model, round(waited_s * 1000)))
    return found


def _pinned(exchange: Exchange) -> bool:
    """Say whether one version of a predictor is asked for: that number of another model is something else."""
    name = exchange.model_in_path
    return name is not None and exchange.path.rpartition("/versions/")[0].endswith(f"/{name}")


_OVERLOADED = frozenset({408, 429, 500, 502, 503, 504, 529})
_REFUSED = (
    b"context_length_exceeded",
    b"content_policy",
    b"content_filter",
    b"maximum context length",
    b"prompt is too long",
    b"exceed context limit",
)
"""Words of a refusal that speaks of the request's length or content; the last two are Anthropic's."""
_WITHHELD = (b'"content_filter"', b'"refusal"')


def overloaded(exchange: Exchange) -> bool:
    """Say whether the answer is that there is none now."""
    return exchange.answer is not None and exchange.answer.status in _OVERLOADED


def _another_may(exchange: Exchange) -> bool:
    """Say whether another model may answer what this one did not."""
    answer = exchange.answer
    if answer is None:
        return False
    if answer.status < 400:
        return _withheld(answer)
    return overloaded(exchange) or any(mark in answer.body for mark in _REFUSED)


def _withheld(answer: Answer) -> bool:
    """Say whether a whole answer is a filter's: it ended there, and nothing was said. A stream has begun."""
    if answer.events is not None or not any(mark in answer.body for mark in _WITHHELD):
        return False
    try:
        told = orjson.loads(answer.body)
    except JSONDecodeError:
        return False
    if type(told) is not dict:
        return False
    if told.get("stop_reason") == "refusal":
        return not told.get("content")
    choices = told.get("choices")
    return (
        type(choices) is list
        and bool(choices)
        and all(type(choice) is dict and _silent(choice) for choice in choices)
    )


def _silent(choice: dict[str, Any]) -> bool:
    said = choice.get("message")
    said = said if type(said) is dict else {"content": choice.get("text")}
    return choice.get("finish_reason") == "content_filter" and not (
        said.get("content") or said.get("tool_calls")
    )


def _begun(exchange: Exchange, upstream: HttpUpstream, call: UpstreamCall) -> Begun | None:
    """Send a call over a kept connection; None when there is none, and nothing was sent."""
    sent_at = time.perf_counter()
    noted = _begin(exchange, upstream, call, 0) if exchange.trace is not None else None
    if (reply := upstream.begin(call)) is None:
        if exchange.trace is not None:
            exchange.trace.attempts.pop()
        return None
    exchange.upstream = exchange.target.place
    return Begun(exchange, upstream, call, reply, sent_at, noted)


async def send(
    exchange: Exchange, upstream: Upstream, call: UpstreamCall, begun: Begun | None = None
) -> Reply:
    """Send a call; once more if no answer came and that can do no harm. Replicas see to that themselves.

    Args:
        exchange: The request.
        upstream: Who is asked.
        call: What is asked.
        begun: The call, where it is on its way already.
    """
    ends = time.perf_counter() + call.timeout_s
    for index in (0, 1):
        first = None if index else begun
        if first is not None:
            noted = first.noted
        else:
            noted = _begin(exchange, upstream, call, index) if exchange.trace is not None else None
        try:
            if first is not None and type(upstream) is HttpUpstream:
                reply: Reply = await upstream.follow(call, first.reply)
            else:
                reply = await upstream.send(call)
        except BaseException as error:
            if noted is not None:
                noted.end(None, error)
            if index or not isinstance(error, APIConnectionError) or not _once_more(upstream, call, error):
                raise
            charge.note(exchange, Rule.FAILED, 0)
            exchange.trail.append(("retry", exchange.upstream, decision.cause(error)))
            # The last time that it is sent: a kept connection that may be closed is not good enough for it.
            call = replace(deadline.within(call, ends - time.perf_counter()), repeatable=False)
        else:
            if noted is not None:
                noted.end(reply.status)
            return reply
    raise RuntimeError("unreachable: the last attempt returns or raises")


def _once_more(upstream: Upstream, call: UpstreamCall, error: APIConnectionError) -> bool:
    if isinstance(upstream, RoutedUpstream):
        return False
    return error.sends < 2 and cause.after_error(error, repeatable=call.repeatable) is not cause.Again.NOWHERE


def _begin(exchange: Exchange, upstream: Upstream, call: UpstreamCall, index: int) -> Attempt:
    trace = exchange.trace
    if trace is None:
        raise RuntimeError("nobody collects spans")
    attempt = Attempt(index)
    trace.attempts.append(attempt)
    if isinstance(call.headers, dict):
        call.headers["traceparent"] = trace.header(attempt)
    if not isinstance(upstream, HttpUpstream):  # what runs in this process opens spans of its own
        trace.enter(attempt)
    return attempt
