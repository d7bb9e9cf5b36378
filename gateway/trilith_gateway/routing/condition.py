"""Sends a request to another model, or to some replicas only, by conditions that the settings list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from trilith.settings.routing import RouteSettings
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release

TAGS = "x-trilith-tags"
"""Holds the caller's own words for a request, separated by commas."""
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def routed(
    exchange: Exchange,
    release: Release,
    find: Callable[[str], Release | None],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Release:
    """Return the release that is to answer instead of `release`, or `release` itself.

    The first route whose conditions hold counts; one to a model that the key may not call, or that does not
    answer what is asked for, is passed over. Routes of the model that it leads to apply as well: the settings
    have no circles.
    """
    while True:
        for number, route in enumerate(release.routes):
            if not holds(route, exchange, release, now):
                continue
            if route.replicas is not None:
                exchange.tag = route.replicas
                exchange.trail.append(("tag", number, release.model, route.replicas))
                return release
            other = find(route.model or "")
            if other is None or not exchange.caller.allows(other.model):
                continue
            if other.kind not in exchange.operation.kinds:
                continue
            exchange.trail.append(("route", number, release.model, other.model))
            release = other
            break
        else:
            return release


def holds(route: RouteSettings, exchange: Exchange, release: Release, now: Callable[[], datetime]) -> bool:
    """Say whether all conditions of a route hold."""
    key, body = exchange.caller, exchange.body
    if route.teams and key.team not in route.teams:
        return False
    if route.keys and key.name not in route.keys:
        return False
    if route.tags and not set(route.tags) & _tags(exchange):
        return False
    if route.tools is not None and route.tools != bool(body.get("tools") or body.get("functions")):
        return False
    if route.stream is not None and route.stream != exchange.stream:
        return False
    if not _between(exchange.body_bytes, route.body_bytes_above, route.body_bytes_below):
        return False
    if route.max_tokens_above is not None or route.max_tokens_below is not None:
        allowed = next(filter(None, map(body.get, _LIMITS)), release.max_output_tokens)
        if not _between(allowed, route.max_tokens_above, route.max_tokens_below):
            return False
    if route.hours is None and not route.days:
        return True
    moment = now()
    if route.days and _DAYS[moment.weekday()] not in route.days:
        return False
    return route.hours is None or _within(route.hours, f"{moment:%H:%M}")


_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")


def _tags(exchange: Exchange) -> set[str]:
    return {tag.strip() for tag in exchange.headers.get(TAGS, "").split(",")}


def _between(value: int, above: int | None, below: int | None) -> bool:
    return (above is None or value > above) and (below is None or value < below)


def _within(hours: str, clock: str) -> bool:
    start, _, end = hours.partition("-")
    if start <= end:
        return start <= clock < end
    return clock >= start or clock < end
