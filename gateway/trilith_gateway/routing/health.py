"""Asks replicas whether they are well, so that the first caller after a failure need not find out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from trilith.errors import APIConnectionError
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.upstream.http import HttpUpstream
from trilith_gateway.upstream.renamed import served

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """What is asked, how often, and what follows."""

    path: str = "/health"
    interval_s: float = 5.0
    timeout_s: float = 2.0
    unhealthy_after: int = 3
    healthy_after: int = 2


@dataclass(slots=True)
class Health:
    """What one replica's checks say."""

    endpoint: Endpoint
    check: Check
    streak: int = field(default=0, init=False)
    """Answers in a row that contradict the present verdict."""

    def take(self, *, good: bool) -> None:
        """Take one answer; the verdict changes when enough in a row contradict it."""
        endpoint = self.endpoint
        if good == endpoint.healthy:
            self.streak = 0
            return
        self.streak += 1
        if self.streak >= (self.check.healthy_after if good else self.check.unhealthy_after):
            endpoint.healthy = good
            self.streak = 0
            _log.warning("replica %s is %s", endpoint.name, "well again" if good else "not well")

    async def ask(self) -> None:
        """Ask once."""
        upstream = served(self.endpoint.upstream)
        if not isinstance(upstream, HttpUpstream):
            return
        try:
            status, _ = await upstream.fetch(self.check.path, timeout_s=self.check.timeout_s)
        except Exception as error:  # whatever it is: the other replicas go on being asked
            if not isinstance(error, APIConnectionError | OSError):
                _log.warning(
                    "replica %s cannot be asked how it is: %s", self.endpoint.name, type(error).__name__
                )
            self.take(good=False)
        else:
            self.take(good=status < 400)


async def watch(endpoints: Sequence[Endpoint], check: Check) -> None:
    """Keep every endpoint's `healthy` up to date, until cancelled."""
    healths = [Health(endpoint, check) for endpoint in endpoints]
    while True:
        await asyncio.gather(*(health.ask() for health in healths))
        await asyncio.sleep(check.interval_s)
