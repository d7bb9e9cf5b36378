"""Rows of the ledger: what was tried for a request, who pays for it, and the one function that makes a row.

A request has one row under its own id, for the try that answered it or was the last. Every try before or
beside it has a row of its own, numbered behind the id: a replica that failed, the slower one of two, a model
that another one had to stand in for. What a try used is charged wherever an upstream reported it, and nothing
where it failed without a report.
"""

from __future__ import annotations

import re
import time
from typing import Any

import orjson

from trilith.money import NS_PER_HOUR, Meter, Price, UnpricedUsage, cost
from trilith.seams import Decision, Tried
from trilith.types import NO_PARTICULARS, Usage
from trilith_gateway import decision
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release
from trilith_gateway.rule import Rule, Try
from trilith_gateway.store.amount import MOST
from trilith_gateway.store.journal import Record

PLATFORM = "platform"
"""The key and team that pay for what no caller asked for: tries of the platform's own, and idle engines."""

_BY_PLATFORM = {"key_id": PLATFORM, "team": PLATFORM, "org": ""}

NOTHING = Usage(requests=0)

TIER = re.compile(rb'"service_tier":\s*"([a-z_-]{1,32})"')
"""A service tier in an answer that nobody decodes."""
_USAGE = re.compile(rb'"usage":\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})')


def note(
    exchange: Exchange,
    rule: Rule,
    status: int,
    *,
    usage: Usage | None = None,
    upstream: str = "",
    by_caller: bool = False,
    estimated: bool = False,
    release: Release | None = None,
) -> Try:
    """Write down a try; `Settle` makes its row when the request ends.

    Args:
        exchange: The request.
        rule: By which rule it is charged; `FAILED` without a usage costs nothing.
        status: What was answered; 0 when nothing was.
        usage: What was used, as far as that is known.
        upstream: Which replica it was; empty: who was asked last.
        by_caller: The caller pays, because the try was part of the answer (a step of a cascade). Otherwise
            the platform pays: a caller asked once.
        estimated: Whether the usage is an estimate.
        release: What was asked; None: the exchange's present release.
    """
    release = release or exchange.target
    where = upstream or exchange.upstream
    amount: int | None = 0
    if usage is not None and rule is not Rule.FAILED:
        amount = rated(usage, release)
        if amount is None:
            rule = Rule.UNPRICED
    found = Try(release, rule, usage or NOTHING, status, amount, where, by_caller, estimated)
    if exchange.tries is None:
        exchange.tries = []
    exchange.tries.append(found)
    return found


def note_tried(exchange: Exchange, tried: Tried, release: Release | None = None) -> None:
    """Write down a try that an upstream made on its own; `release`: as in `note`."""
    usage = None
    if (told := reported(tried.body, tried.status)) is not None:
        usage = exchange.operation.read_usage(told)
    rule = Rule.FAILED if usage is None else Rule.USAGE
    note(exchange, rule, tried.status, usage=usage, upstream=tried.upstream, release=release)


def reported(body: bytes, status: int) -> dict[str, Any] | None:
    """Return what tells usage in an answer, or in what came of one that broke off; None when nothing does.

    In an error it counts only where the protocol has it: elsewhere in it, a caller's own words may stand.

    Args:
        body: What came.
        status: The answer's status; 0 when it broke off.
    """
    try:
        answer = orjson.loads(body)
    except ValueError:
        return _torn(body) if status < 400 else None
    if not isinstance(answer, dict):
        return None
    return {name: answer[name] for name in _TELLING if name in answer}


_TELLING = ("usage", "service_tier")


def _torn(body: bytes) -> dict[str, Any] | None:
    found = _USAGE.search(body)
    try:
        told = {"usage": orjson.loads(found[1])} if found is not None else None
    except ValueError:
        return None
    if told is not None and (tier := TIER.search(body)) is not None:
        told["service_tier"] = tier[1].decode()
    return told


def owed(exchange: Exchange) -> int:
    """Return what the caller owes for tries (pico-USD), with what stands for those that nobody can price."""
    if exchange.tries is None:
        return 0
    return sum(one.amount or one.stands_for or 0 for one in exchange.tries if one.by_caller)


def owes_unknown(exchange: Exchange) -> bool:
    """Say whether the caller owes for a try that nobody can price, and for which nothing stands yet."""
    tries = exchange.tries or ()
    return any(one.by_caller and one.amount is None and one.stands_for is None for one in tries)


def stand_for_unknown(exchange: Exchange, reserved: int) -> None:
    """Let what was reserved stand for tries that nobody can price, lest they be free.

    Args:
        exchange: The request, which is about to move on.
        reserved: What was reserved until now (pico-USD).
    """
    for one in exchange.tries or ():
        if one.by_caller and one.amount is None and one.stands_for is None:
            one.stands_for = max(0, reserved - owed(exchange))


def spent(exchange: Exchange) -> int:
    """Return what the caller pays beside the answer's own price, for steps on the way to it (pico-USD)."""
    if exchange.tries is None:
        return 0
    return sum(one.amount or 0 for one in exchange.tries if one.by_caller)


def rated(usage: Usage, release: Release, meter: Meter | None = None) -> int | None:
    """Return what a usage costs at a release's price (pico-USD); None: that is not known.

    Args:
        usage: What was used.
        release: Whose price it is.
        meter: Carries fractions of a pico-USD of CPU time from one call to the next.
    """
    price = release.price
    if price is None:
        return None
    try:
        amount = cost(usage, price)
    except UnpricedUsage:
        return None
    if meter is not None and (ns := usage.particulars.cpu_ns):
        amount += meter.charge(ns, price.cpu_hour) - ns * price.cpu_hour // NS_PER_HOUR
    return amount if amount <= MOST else None  # nobody used that much: a count is wrong


def cut(exchange: Exchange, usage: Usage) -> Usage:
    """Cut an estimate to what the request can have used at most, which is what was reserved."""
    most = exchange.operation.bound(exchange.body, exchange.body_bytes, exchange.target.max_output_tokens)
    if not most.output_tokens:
        return usage
    return Usage(min(usage.input_tokens, most.input_tokens), min(usage.output_tokens, most.output_tokens))


def unpriced(usage: Usage, price: Price) -> tuple[str, ...]:
    """Return the parts of a usage that a price does not name; empty: it can be priced."""
    try:
        cost(usage, price)
    except UnpricedUsage as unknown:
        return unknown.kinds
    return ()


def row(exchange: Exchange, now: float, usage: Usage, *, estimated: bool, tried: Try | None = None) -> Record:
    """Make the ledger's row for a request, or for one of its tries.

    Args:
        exchange: The request, with `rule` and `amount` set.
        now: Unix time.
        usage: What was used.
        estimated: Whether the usage is an estimate.
        tried: The try that the row is for, one of `exchange.tries`; None: the request's own.
    """
    release, key = tried.release if tried else exchange.target, exchange.caller
    first = exchange.first_byte_at
    rule = tried.rule if tried else exchange.rule
    found: Record = {
        "t": "charge",
        "id": _id(exchange),
        "request_id": exchange.request_id,
        "at": now,
        "key_id": key.id,
        "team": key.team,
        "model": release.model,
        "kind": release.kind._value_,  # `value` is a property in Python
        "release": release.digest,
        "status": _status(exchange),
        "rule": rule._value_ if rule else "",
        "price": release.price_id,
        "amount_pico_usd": exchange.amount,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "rows": usage.rows,
        "requests": usage.requests,
        "duration_ms": (time.perf_counter() - exchange.clock) * 1000,
        "first_byte_ms": None if first is None else (first - exchange.clock) * 1000,
        "streamed": int(exchange.stream),
    }
    if usage.particulars is not NO_PARTICULARS:
        found |= particulars(usage)
    if usage.images or usage.seconds or usage.characters:
        found |= {"images": usage.images, "seconds": usage.seconds, "characters": usage.characters}
    if estimated:
        found["estimated"] = 1
    if key.org:
        found["org"] = key.org
    if exchange.budget:
        found["budget"] = exchange.budget
    if release.model != exchange.model:
        found["asked"] = exchange.model
    if exchange.saved_pico_usd:
        found["saved_pico_usd"] = exchange.saved_pico_usd
    if exchange.upstream:
        found["upstream"] = exchange.upstream
    if tried is None and (decided := _decided(exchange)):
        found["decided"] = decision.written(decided)
    if exchange.kept_as and tried is None and exchange.body.get("store") is not False:
        found["kept_as"] = exchange.kept_as
    if exchange.tries is not None:
        found |= _numbered(exchange, exchange.tries, tried)
    if exchange.paid:
        found |= {"category": "attempt", **_BY_PLATFORM}
    return found


def _decided(exchange: Exchange) -> list[Decision]:
    if (word := exchange.cache) is None or word == "bypass":  # the way itself says why it was passed by
        return exchange.trail
    told = ("cache", word, round(exchange.cache_age_s)) if exchange.recalled else ("cache", word)
    return [*exchange.trail, told]


def _id(exchange: Exchange) -> str:
    """Return the id of a request's row; one that is paid for already keeps the row that it has."""
    return f"{exchange.id}+{exchange.started_ns}" if exchange.paid else exchange.id


def particulars(usage: Usage) -> Record:
    """Return the columns of the rarer units that are not at their defaults."""
    used = usage.particulars
    return {name: value for name in used.__slots__ if (value := getattr(used, name))}


def _numbered(exchange: Exchange, tries: list[Try], tried: Try | None) -> Record:
    if tried is None:
        return {"attempt": len(tries) + 1}
    number = next(at for at, one in enumerate(tries, 1) if one is tried)
    changed: Record = {
        "id": f"{_id(exchange)}.{number}",
        "attempt": number,
        "category": "attempt",
        "status": tried.status,
        "amount_pico_usd": tried.amount,
        "upstream": tried.upstream,
        "saved_pico_usd": 0,
    }
    return changed if tried.by_caller else changed | _BY_PLATFORM


def _status(exchange: Exchange) -> int:
    if exchange.rule is Rule.ABORTED:
        return 499
    return exchange.answer.status if exchange.answer else 500
