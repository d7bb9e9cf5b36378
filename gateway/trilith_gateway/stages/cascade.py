"""Around stage 6: asks a cascade's steps before the model itself, and judges and charges each of them.

A step's answer is read whole before anyone sees it. If it will do, it is the answer, and its model's release
is the one that is charged and named, as with a fallback; if not, what it cost becomes a row of its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from json import JSONDecodeError
from typing import Any, TypeAlias

import orjson

from trilith.errors import APIConnectionError, APIError, InternalServerError
from trilith.seams import Call as UpstreamCall
from trilith.seams import Tried
from trilith.types import Kind, Usage
from trilith_gateway import charge, deadline, decision, sse
from trilith_gateway.exchange import Answer, Exchange
from trilith_gateway.release import Release, ReleaseTable
from trilith_gateway.routing import cascade
from trilith_gateway.routing.cascade import Step
from trilith_gateway.rule import Rule
from trilith_gateway.stages import call
from trilith_gateway.stages.route import Route
from trilith_gateway.usage import estimate

HEADER = "x-trilith-cascade"
"""Names the model that answered for a cascade."""
_ONE_ROW = Usage(rows=1)


class Cascade:
    """Asks others first, where a model's settings say so; all other requests pass straight on."""

    def __init__(
        self,
        ask: Callable[[Exchange], Awaitable[None] | None],
        releases: ReleaseTable,
        route: Route,
        move: Callable[[Exchange, Release], None],
    ) -> None:
        """Take the call stage, and what steps need: the table, routing, the way to a release."""
        self._ask = ask
        self._releases = releases
        self._route = route
        self._move = move

    def __call__(self, exchange: Exchange) -> Awaitable[None] | None:
        """Set `exchange.answer`."""
        release = exchange.release
        if release is None or exchange.answer is not None or not (release.steps or release.otherwise):
            return self._ask(exchange)
        return self._in_turn(exchange, release)

    async def _in_turn(self, exchange: Exchange, own: Release) -> None:
        asked = cascade.steps(exchange, own.steps, self._releases.find)
        for step in asked:
            exchange.release = step.release
            if await self._step(exchange, own, step):
                return
        if asked:
            exchange.release, exchange.upstream = own, ""
            self._route(exchange)  # time has passed
        waited_s = exchange.waited_s
        error: APIError | None = None
        try:
            if (wait := self._ask(exchange)) is not None:
                await wait
        except (APIConnectionError, InternalServerError) as failure:
            error = failure
        exchange.waited_s += waited_s
        if (error is not None or call.overloaded(exchange)) and await self._otherwise(exchange, own, error):
            return
        if error is not None:
            raise error
        if own.steps and exchange.answer is not None:
            exchange.answer.headers[HEADER] = exchange.target.model

    async def _otherwise(self, exchange: Exchange, own: Release, error: APIError | None) -> bool:
        settings = () if own.otherwise is None else (own.otherwise,)
        for step in cascade.steps(exchange, settings, self._releases.find):
            told = "" if exchange.answer is None else f"status {exchange.answer.status}"
            why = told if error is None else decision.cause(error)
            exchange.trail.append(("unanswered", exchange.target.model, why))
            if exchange.reply is not None:
                await exchange.reply.aclose()
            before = exchange.answer, exchange.reply, exchange.release, exchange.fell_back, exchange.upstream
            self._move(exchange, step.release)
            if await self._step(exchange, own, step):
                return True
            exchange.answer, exchange.reply, exchange.release, exchange.fell_back, exchange.upstream = before
        return False

    async def _step(self, exchange: Exchange, own: Release, step: Step) -> bool:
        """Ask one model; true when its answer is the answer."""
        judge = self._classify if step.release.kind is Kind.PREDICTOR else self._chat
        try:
            answer, usage, reason, sure = await judge(exchange, step)
        except _Unanswered as failure:
            exchange.trail.append(("unanswered", step.release.model, str(failure)))
            return False
        if reason:
            exchange.trail.append(("cascade", step.release.model, f"was asked, {reason}"))
            used = usage or estimate(exchange.body_bytes, len(cascade.words(answer).encode()))
            _charge(exchange, step.release, used, estimated=usage is None)
            return False
        exchange.trail.append(("cascade", step.release.model, "answered", *sure))
        self._accept(exchange, own, step, answer, usage)
        return True

    def _accept(
        self, exchange: Exchange, own: Release, step: Step, answer: dict[str, Any], usage: Usage | None
    ) -> None:
        exchange.usage = usage
        exchange.first_byte_at = time.perf_counter()
        exchange.cascaded = step.release.model
        exchange.reply = None
        headers = {"content-type": "application/json", HEADER: step.release.model}
        if exchange.stream:
            told = cascade.streamed(answer, usage_wanted=exchange.usage_wanted)
            headers |= {"content-type": "text/event-stream", "cache-control": "no-cache"}
            headers["x-accel-buffering"] = "no"
            exchange.answer = Answer(200, headers, events=_once(told))
        else:
            exchange.answer = Answer(200, headers, sse.dump(answer))
        if usage is None or step.settings is own.otherwise:
            return
        said = len(cascade.words(answer).encode())
        same = usage if step.release.kind is Kind.CHAT else estimate(exchange.body_bytes, said)
        instead, paid = charge.rated(same, own), charge.rated(usage, step.release)
        if instead is not None and paid is not None:
            exchange.saved_pico_usd = max(0, instead - paid - charge.spent(exchange))

    async def _classify(self, exchange: Exchange, step: Step) -> _Judged:
        settings = step.settings
        text = cascade.question(exchange.body)
        label, confidence = await self._predict(exchange, step.release, settings.input, text)
        said = cascade.said(exchange, settings.answers.get(label, label))
        return said, _ONE_ROW, cascade.refused_label(label, confidence, settings), (round(confidence, 4),)

    async def _chat(self, exchange: Exchange, step: Step) -> _Judged:
        settings = step.settings
        body = sse.dump(cascade.asked(exchange.body, step.release, settings))
        answer = await self._answer(exchange, step.release, replace(_ready(exchange), body=body, tag=None))
        usage = exchange.operation.read_usage(answer)
        reason, asked = cascade.refused_chat(answer, settings), exchange.upstream
        sure: tuple[float, ...] = ()
        if not reason and settings.check is not None and step.check is not None:
            text = cascade.words(answer)
            try:
                found = await self._predict(exchange, step.check, settings.check.input, text)
            except _Unanswered:
                exchange.upstream = asked
                return answer, usage, f"{settings.check.model} could not check it", ()
            _charge(exchange, step.check, _ONE_ROW)
            exchange.upstream = asked
            reason, sure = cascade.refused_check(*found, settings.check), (round(found[1], 4),)
        if settings.mean_logprob is not None and not exchange.body.get("logprobs"):
            for choice in answer.get("choices") or ():
                choice.pop("logprobs", None)
        return answer, usage, reason, sure

    async def _predict(self, exchange: Exchange, release: Release, name: str, text: str) -> tuple[str, float]:
        asked = cascade.tensors(name, text)
        path = f"/v2/models/{release.model}/infer"
        ready = _ready(exchange)
        given = replace(ready, path=path, body=sse.dump(asked), json=asked, tag=None, affinity=None)
        return cascade.verdict(await self._answer(exchange, release, given))

    async def _answer(self, exchange: Exchange, release: Release, given: UpstreamCall) -> dict[str, Any]:
        """Send a call and return its decoded answer.

        Raises:
            APITimeoutError: the caller's time is up.
            _Unanswered: there is none, or it is an error.
        """
        given = replace(given, headers=dict(given.headers))
        if exchange.until is not None:
            given = deadline.within(given, exchange.until - time.perf_counter())
        work = _whole(exchange, release, given)
        sent_at = time.perf_counter()
        try:
            return await (work if exchange.head_until is None else deadline.by(exchange.head_until, work))
        except APIError as error:
            if exchange.head_until is not None and time.perf_counter() >= exchange.head_until:
                raise
            raise _Unanswered(decision.cause(error)) from error
        finally:
            exchange.waited_s += time.perf_counter() - sent_at


_Judged: TypeAlias = tuple[dict[str, Any], Usage | None, str, tuple[float, ...]]
"""An answer, what it used, why it will not do, and how sure whoever judged it was, if it says so."""


def _charge(exchange: Exchange, release: Release, usage: Usage, *, estimated: bool = False) -> None:
    rule = Rule.ESTIMATE if estimated else Rule.USAGE
    charge.note(exchange, rule, 200, usage=usage, by_caller=True, estimated=estimated, release=release)


class _Unanswered(Exception):
    """A step gave no answer, which is no reason to give up."""


async def _whole(exchange: Exchange, release: Release, given: UpstreamCall) -> dict[str, Any]:
    """Send a call and return its decoded answer; what one that will not do has used is noted."""
    parts: list[bytes] = []
    status = 0
    exchange.upstream = release.place
    try:
        reply = await call.send(exchange, release.upstream, given)
        exchange.upstream = getattr(reply, "upstream", "") or release.place
        status = reply.status
        try:
            async for part in reply.chunks():
                parts.append(part)
        finally:
            await reply.aclose()
    except APIConnectionError as error:
        _note_lost(exchange, status, error.received or b"".join(parts))
        raise
    raw = b"".join(parts)
    if status >= 400:
        _note_lost(exchange, status, raw)
        raise _Unanswered(f"status {status}")
    try:
        answer = orjson.loads(raw)
    except JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise _Unanswered("its answer is no JSON object")
    return answer


def _note_lost(exchange: Exchange, status: int, received: bytes) -> None:
    if b'"usage"' in received:
        charge.note_tried(exchange, Tried("", status, received))


def _ready(exchange: Exchange) -> UpstreamCall:
    if exchange.call is None:
        raise RuntimeError("the request is not routed yet")
    return exchange.call


async def _once(stream: bytes) -> AsyncIterator[bytes]:
    yield stream
