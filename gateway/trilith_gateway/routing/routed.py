"""An upstream made of several: chooses one, tries another when that can help, hedges, and never storms."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from trilith.errors import APIConnectionError, APITimeoutError, InternalServerError
from trilith.seams import Call, Reply, Tried
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.policy import Choose
from trilith_gateway.routing.pressure import follow

_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses that another replica may do better than."""
_MOST_REST_S = 60.0
_SEEN = 200
_REST_S = 0.1
"""How long an answer that nobody gets is waited for, once its head is there (seconds)."""
_REST_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is tried."""

    attempts: int = 2
    """Most tries of one request, the first included."""
    retry_share: float = 0.2
    """Most retries as a share of requests, over time."""
    hedge_share: float = 0.0
    """Most hedged requests as a share of requests; 0: none."""


class Allowance:
    """A token bucket that fills with requests, not with time: extra work stays a share of the work."""

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst if share else 0.0

    def earn(self) -> None:
        """One request has come."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Take one token; false when there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RoutedUpstream:
    """Implements `Upstream` over replicas that are interchangeable.

    Nothing is tried again once an answer's head has gone to the caller. A retry goes to another replica where
    there is one that may be asked.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        choose: Choose,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        engine_load: bool = False,
    ) -> None:
        """Take the replicas and the policy.

        Args:
            endpoints: At least one.
            choose: The policy.
            limits: How much is tried.
            clock: Seconds, monotonic; the running loop's when None.
            rng: For jitter; seeded in tests.
            engine_load: Follow the engines' own metrics, from the first call on.
        """
        self.endpoints = tuple(endpoints)
        self._choose = choose
        self._limits = limits
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._rng = rng or random.Random()
        self._retries = Allowance(limits.retry_share, burst=10)
        self._hedges = Allowance(limits.hedge_share, burst=3)
        self._engine_load = engine_load
        self._following: asyncio.Task[None] | None = None
        self._heads: deque[float] = deque(maxlen=_SEEN)

    async def send(self, call: Call) -> Reply:
        """Send one call.

        Raises:
            APIConnectionError: no replica answered.
            InternalServerError: 503, none may be asked now.
        """
        if self._engine_load and self._following is None:
            self._following = asyncio.get_running_loop().create_task(follow(self.endpoints))
        self._retries.earn()
        self._hedges.earn()
        began = self._clock()
        tried: list[Endpoint] = []
        while True:
            now = self._clock()
            endpoint = self._next(call, tried, now)
            left = call.timeout_s - (now - began)
            last = len(tried) + 1 >= self._limits.attempts
            tried.append(endpoint)
            try:
                reply = await self._hedged(endpoint, replace(call, timeout_s=left), tried, left)
            except APIConnectionError as error:
                again = error.retryable and not last and not isinstance(error, APITimeoutError)
                if not (again and self._retries.spend()):
                    raise
                _tell(call, Tried(endpoint.name, 0))
            else:
                if reply.status not in _AGAIN or last or not self._other(tried) or not self._retries.spend():
                    return reply
                _tell(call, Tried(endpoint.name, reply.status, await _rest(reply)))
            if not self._other(tried):  # the same one again: give it a moment
                await asyncio.sleep(min(left, 0.05 * 2 ** len(tried)) * self._rng.random())

    def _next(self, call: Call, tried: Sequence[Endpoint], now: float) -> Endpoint:
        may = [e for e in self.endpoints if e.breaker.allows(now)]
        fresh = [endpoint for endpoint in may if endpoint not in tried]
        if not may:
            wait = min(endpoint.breaker.open_until for endpoint in self.endpoints) - now
            raise InternalServerError(
                "No replica of this model answers at the moment.",
                status_code=503,
                code="upstream_unavailable",
                type="server_error",
                retry_after_s=max(1.0, wait),
            )
        return self._choose(fresh or may, call.affinity)

    def _other(self, tried: Sequence[Endpoint]) -> bool:
        now = self._clock()
        return any(e not in tried and e.breaker.allows(now) for e in self.endpoints)

    async def _hedged(self, endpoint: Endpoint, call: Call, tried: list[Endpoint], left: float) -> Reply:
        after = self._patience()
        if after is None or after >= left or not self._other(tried):
            return await self._ask(endpoint, call)
        first = asyncio.create_task(self._ask(endpoint, call), name=endpoint.name)
        tasks = {first}
        chosen: Reply | None = None
        try:
            await asyncio.wait(tasks, timeout=after)
            if not first.done() and self._other(tried) and self._hedges.spend():
                other = self._next(call, tried, self._clock())
                tried.append(other)
                tasks.add(asyncio.create_task(self._ask(other, call), name=other.name))
            chosen = await _first_good(tasks)
            return chosen
        finally:
            for task in tasks:
                task.cancel()
            for task, outcome in zip(
                tasks, await asyncio.gather(*tasks, return_exceptions=True), strict=True
            ):
                name = task.get_name()
                if isinstance(outcome, BaseException):
                    if chosen is not None:
                        _tell(call, Tried(name, 0))
                elif chosen is None:  # the caller has left
                    await outcome.aclose()
                elif outcome is not chosen:
                    _tell(call, Tried(name, outcome.status, await _rest(outcome)))

    def _patience(self) -> float | None:
        """Return the 95th percentile of the times to head; None while it is unknown, or nothing is hedged."""
        if not self._limits.hedge_share or len(self._heads) < 20:
            return None
        return sorted(self._heads)[int(len(self._heads) * 0.95)]

    async def _ask(self, endpoint: Endpoint, call: Call) -> Reply:
        began = self._clock()
        endpoint.outstanding += 1
        endpoint.breaker.begin(began)
        try:
            reply = await endpoint.upstream.send(call)
        except APIConnectionError:
            endpoint.outstanding -= 1
            endpoint.breaker.fail(self._clock())
            raise
        except BaseException:
            endpoint.outstanding -= 1
            endpoint.breaker.abandon()
            raise
        now = self._clock()
        if reply.status in _AGAIN and reply.status != 429:
            endpoint.breaker.fail(now)
        else:
            endpoint.breaker.succeed()
            if reply.status < 400:
                endpoint.observe(now - began, now)
                self._heads.append(now - began)
        if reply.status in (429, 503) and (rest := _rest_s(reply.headers)):
            endpoint.breaker.rest(now + rest)
        return _Counted(reply, endpoint)

    async def ready(self) -> bool:
        """Say whether any replica answers."""
        return any(await asyncio.gather(*(endpoint.upstream.ready() for endpoint in self.endpoints)))

    async def aclose(self) -> None:
        """Close every replica's connections."""
        if self._following is not None:
            self._following.cancel()
        await asyncio.gather(*(endpoint.upstream.aclose() for endpoint in self.endpoints))


def _tell(call: Call, tried: Tried) -> None:
    if call.tried is not None:
        call.tried(tried)


async def _rest(reply: Reply) -> bytes:
    """Give an answer up that nobody gets. A whole one is read first: it was made, and tells what it used."""
    found = b""
    try:
        if not reply.headers.get("content-type", "").startswith("text/event-stream"):
            async with asyncio.timeout(_REST_S):
                async for chunk in reply.chunks():
                    found += chunk
                    if len(found) > _REST_BYTES:
                        break
    except (APIConnectionError, TimeoutError):
        pass  # what has come is what there is
    finally:
        await reply.aclose()
    return found


async def _first_good(tasks: set[asyncio.Task[Reply]]) -> Reply:
    """Return the first answer that is not an error; if all are, the outcome of the last one."""
    waiting = set(tasks)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None and task.result().status < 400:
                return task.result()
        if not waiting:
            return next(iter(done)).result()


def _rest_s(headers: Mapping[str, str]) -> float:
    """Return Retry-After in seconds, 0 when there is none that can be read (dates are not)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(_MOST_REST_S, max(0.0, float(headers[name]) * unit))
        except (KeyError, ValueError):
            continue
    return 0.0


class _Counted:
    """A reply that tells its endpoint when it is over."""

    __slots__ = ("_endpoint", "_reply", "headers", "status")

    def __init__(self, reply: Reply, endpoint: Endpoint) -> None:
        self._reply = reply
        self._endpoint: Endpoint | None = endpoint
        self.status = reply.status
        self.headers = reply.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives."""
        try:
            async for chunk in self._reply.chunks():
                yield chunk
        finally:
            self._over()

    async def aclose(self) -> None:
        """Give the answer up."""
        self._over()
        await self._reply.aclose()

    def _over(self) -> None:
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            endpoint.outstanding -= 1
