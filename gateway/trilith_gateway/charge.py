"""Rows of the ledger: what was tried for a request, who pays for it, and the one function that makes a row.

A request has one row under its own id, for the try that answered it or was the last. Every try before or
beside it has a row of its own, numbered behind the id: a replica that failed, the slower one of two, a model
that another one had to stand in for. What a try used is charged wherever an upstream reported it, and nothing
where it failed without a report.
"""

from __future__ import annotations

import re
import time

import orjson

from trilith.money import NS_PER_HOUR, Meter, Price, UnpricedUsage, cost
from trilith.seams import Decision, Tried
from trilith.types import NO_PARTICULARS, Usage
from trilith_gateway import decision
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release
from trilith_gateway.rule import Rule, Try
from trilith_gateway.store.journal import Record

PLATFORM = "platform"
"""The key and team that pay for what no caller asked for: tries of the platform's own, and idle engines."""

NOTHING = Usage(requests=0)

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


def note_tried(exchange: Exchange, tried: Tried) -> None:
    """Write down a try that an upstream made on its own."""
    usage = None
    if (told := reported(tried.body, tried.status)) is not None:
        usage = exchange.operation.read_usage({"usage": told})
    rule = Rule.FAILED if usage is None else Rule.USAGE
    note(exchange, rule, tried.status, usage=usage, upstream=tried.upstream)


def reported(body: bytes, status: int) -> object:
    """Return the usage in an answer, or in what came of one that broke off; None when there is none.

    In an error it counts only where the protocol has it: elsewhere in it, a caller's own words may stand.

    Args:
        body: What came.
        status: The answer's status; 0 when it broke off.
    """
    try:
        answer = orjson.loads(body)
    except ValueError:
        found = _USAGE.search(body) if status < 400 else None
        try:
            return orjson.loads(found[1]) if found is not None else None
        except ValueError:
            return None
    return answer.get("usage") if isinstance(answer, dict) else None


def owed(exchange: Exchange) -> int:
    """Return what the caller owes for tries and is not booked yet (pico-USD); from here on it is."""
    total = 0
    for one in exchange.tries or ():
        if one.by_caller and not one.booked:
            one.booked = True
            total += one.amount or 0
    return total


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
    return amount


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
        "id": exchange.id,
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
    return found


def _decided(exchange: Exchange) -> list[Decision]:
    if (word := exchange.cache) is None or word == "bypass":  # the way itself says why it was passed by
        return exchange.trail
    told = ("cache", word, round(exchange.cache_age_s)) if exchange.recalled else ("cache", word)
    return [*exchange.trail, told]


def particulars(usage: Usage) -> Record:
    """Return the columns of the rarer units that are not at their defaults."""
    used = usage.particulars
    return {name: value for name in used.__slots__ if (value := getattr(used, name))}


def _numbered(exchange: Exchange, tries: list[Try], tried: Try | None) -> Record:
    if tried is None:
        return {"attempt": len(tries) + 1}
    number = next(at for at, one in enumerate(tries, 1) if one is tried)
    changed: Record = {
        "id": f"{exchange.id}.{number}",
        "attempt": number,
        "category": "attempt",
        "status": tried.status,
        "amount_pico_usd": tried.amount,
        "upstream": tried.upstream,
        "saved_pico_usd": 0,
    }
    return changed if tried.by_caller else changed | {"key_id": PLATFORM, "team": PLATFORM, "org": ""}


def _status(exchange: Exchange) -> int:
    if exchange.rule is Rule.ABORTED:
        return 499
    return exchange.answer.status if exchange.answer else 500
