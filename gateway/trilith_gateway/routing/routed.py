"""An upstream made of several: chooses one, tries another when that can help, hedges, and never storms."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trilith.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    InternalServerError,
)
from trilith.seams import Call, Decision, Reply, Tried
from trilith_gateway.deadline import within
from trilith_gateway.routing import cause, health, pressure
from trilith_gateway.routing.cause import Again
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.health import Check
from trilith_gateway.routing.outcome import Counted, Told, Whole, ask
from trilith_gateway.routing.outlier import Ejection, Outliers
from trilith_gateway.routing.policy import Choose, Prefix

_SEEN = 200
_REST_S = 0.1
"""How long an answer that nobody gets is waited for, once its head is there (seconds)."""
_HEDGE_AGAIN_S = 0.05
"""How soon a request that may not be hedged now asks again whether it may (seconds)."""
_SILENT_S = 1.0
"""After a request was late, a replica that has answered nothing for so long (seconds), nor for as long as its
answers take, counts as silent."""
_REST_BYTES = 256 * 1024
_OWN_WORD = frozenset({"x-should-retry", "retry-after", "retry-after-ms"})
"""Headers in which an upstream itself says when to come back, or not to."""
_PATIENCE_S = 30.0
"""A call that ran out of time sooner says more of its caller's haste than of the replica (seconds)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is tried."""

    attempts: int = 2
    """Most tries of one request, the first included."""
    retry_share: float = 0.2
    """Most retries as a share of requests, over time."""
    hedge_share: float = 0.0
    """Most hedged requests as a share of requests; 0: none."""
    attempt_s: float | None = None
    """How long one try may take (seconds); None: as long as the call."""


class Allowance:
    """A token bucket that fills with requests: extra work stays a share of the work.

    It may also fill a little with time, for models that are seldom asked: there, each request may be the one
    that finds out that a replica is still away.
    """

    def __init__(self, share: float, burst: float, per_s: float = 0.0) -> None:
        self._share = share
        self._burst = burst
        self._per_s = per_s if share else 0.0
        self._tokens = burst if share else 0.0
        self._at: float | None = None

    def earn(self, now: float) -> None:
        """One request has come; `now` in seconds, monotonic."""
        self._fill(now, self._share)

    def wait(self, now: float) -> None:
        """Time has passed, and no request may have come."""
        self._fill(now, 0.0)

    def _fill(self, now: float, earned: float) -> None:
        passed = 0.0 if self._at is None else now - self._at
        self._at = now
        self._tokens = min(self._burst, self._tokens + earned + passed * self._per_s)

    def spend(self) -> bool:
        """Take one token; false when there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RoutedUpstream:
    """Implements `Upstream` over replicas that are interchangeable.

    Nothing is tried again once an answer's head has gone to the caller; an answer that is no stream is read
    to its end first, so that one which breaks off can still be had elsewhere. `routing.cause` says what is
    tried again after what. What was tried more than once and given up, others should not try again at once:
    such answers carry `x-should-retry: false`, and such errors are not retryable.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        choose: Choose,
        *,
        why: str = "",
        limits: Limits = Limits(),
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
        engine_load: bool = False,
        check: Check | None = None,
        ejection: Ejection | None = None,
    ) -> None:
        """Take the replicas and the policy.

        Args:
            endpoints: At least one.
            choose: The policy.
            why: Its name, for those who ask later why a replica was chosen.
            limits: How much is tried.
            clock: Seconds, monotonic; the running loop's when None.
            rng: For jitter; seeded in tests.
            engine_load: Follow the engines' own metrics, from the first call on.
            check: Ask the replicas for their health, from the first call on.
            ejection: Leave replicas alone that do much worse than the others.
        """
        self.endpoints = tuple(endpoints)
        self._choose = choose
        self._why = why
        self._limits = limits
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._rng = rng or random.Random()
        self._retries = Allowance(limits.retry_share, burst=10, per_s=1)
        self._hedges = Allowance(limits.hedge_share, burst=3)
        self._rescues = Allowance(limits.hedge_share, burst=1, per_s=1)
        self._engine_load = engine_load
        self._check = check
        self._outliers = Outliers(ejection) if ejection is not None else None
        self._following: list[asyncio.Task[None]] | None = None
        self._heads: deque[float] = deque(maxlen=_SEEN)

    async def send(self, call: Call) -> Reply:
        """Send one call.

        Raises:
            APIConnectionError: no replica answered.
            APITimeoutError: the call's time is up.
            InternalServerError: 503, none may be asked now.
        """
        self._follow()
        now = self._clock()
        self._retries.earn(now)
        self._hedges.earn(now)
        ends = now + call.timeout_s
        tried: list[Endpoint] = []
        again_sent = 0  # how often a try sent it over a new connection, because a kept one was closed
        while True:
            endpoint = self._next(call, tried)
            left = ends - self._clock()
            if left <= 0:
                raise _final(APITimeoutError("the request's time is up"))
            tried.append(endpoint)
            outcome: Reply | APIConnectionError | APIStatusError
            this = call if len(tried) == 1 else self._later(call, left, len(tried) + again_sent)
            try:
                outcome = await self._hedged(endpoint, this, tried)
                again = cause.after_status(outcome.status, repeatable=call.repeatable)
            except APIConnectionError as error:
                outcome, again = error, cause.after_error(error, repeatable=call.repeatable)
                again_sent += max(0, error.sends - 1)
            except APIStatusError as error:  # from what runs in this process, or cannot be opened
                outcome, again = error, cause.after_status(error.status_code, repeatable=call.repeatable)
            unsent = isinstance(outcome, APIConnectionError) and not outcome.sent
            if again is Again.NOWHERE or not self._once_more(call, tried, again, again_sent, unsent=unsent):
                if isinstance(outcome, APIConnectionError):
                    outcome.upstream = outcome.upstream or endpoint.name
                return _given(outcome, final=len(tried) > 1)
            _note(call, endpoint, outcome)
            if isinstance(outcome, APIConnectionError):
                _tell(call, Tried(outcome.upstream or endpoint.name, 0, outcome.received))
                await self._pause(call, tried, ends)
            elif isinstance(outcome, APIStatusError):
                _tell(call, Tried(endpoint.name, outcome.status_code, b""))
            else:
                name = getattr(outcome, "upstream", "") or endpoint.name
                _tell(call, Tried(name, outcome.status, await _rest(outcome)))

    def _later(self, call: Call, left: float, sends: int) -> Call:
        """Return the call for a further try; the last one goes over no connection that may be closed."""
        call = within(call, left)
        return replace(call, repeatable=False) if sends >= self._limits.attempts else call

    def _once_more(
        self, call: Call, tried: Sequence[Endpoint], again: Again, again_sent: int, *, unsent: bool
    ) -> bool:
        if len(tried) >= self._limits.attempts or len(tried) + again_sent > self._limits.attempts:
            return False
        if not self._others(call, tried) and (again is Again.ELSEWHERE or not self._may(call)):
            return False
        # What was never sent is no extra work for anybody.
        return (unsent and self._others(call, tried)) or self._retries.spend()

    async def _pause(self, call: Call, tried: Sequence[Endpoint], ends: float) -> None:
        if not self._others(call, tried):  # the same one again: give it a moment
            left = max(0.0, ends - self._clock())
            await asyncio.sleep(min(left, 0.05 * 2 ** len(tried)) * self._rng.random())

    def _next(self, call: Call, tried: Sequence[Endpoint]) -> Endpoint:
        may = self._may(call)
        if not may:
            if call.trail is not None:
                call.trail.append(("replica", "", self._why, 0, self._out(call, tried, may)))
            raise self._none(call)
        asked = [endpoint for endpoint in may if endpoint not in tried] or may
        chosen = self._choose(asked, call.affinity)
        if call.trail is not None:
            call.trail.append(self._chosen(call, tried, asked, chosen))
        return chosen

    def _chosen(
        self, call: Call, tried: Sequence[Endpoint], asked: Sequence[Endpoint], chosen: Endpoint
    ) -> Decision:
        choose = self._choose
        why = choose.why if type(choose) is Prefix else self._why
        out = () if len(asked) == len(self.endpoints) else self._out(call, tried, asked)
        return ("replica", chosen.name, why, len(asked), out)

    def _out(
        self, call: Call, tried: Sequence[Endpoint], asked: Sequence[Endpoint]
    ) -> tuple[tuple[str, str], ...]:
        """Return those that were not considered, with the reason: eight at most."""
        now, meant = self._clock(), self._meant(call)
        out = [endpoint for endpoint in self.endpoints if endpoint not in asked]
        return tuple(
            (
                endpoint.name,
                "not meant" if endpoint not in meant else endpoint.away(now) or "tried already",
            )
            for endpoint in out[:8]
        )

    def _may(self, call: Call) -> list[Endpoint]:
        """Return those that may be asked; when every one of them is unwell, that is no reason to ask none."""
        now = self._clock()
        may = [endpoint for endpoint in self._meant(call) if endpoint.breaker.allows(now)]
        for endpoint in may:
            endpoint.forget(now)
        return [endpoint for endpoint in may if endpoint.well(now)] or may

    def _meant(self, call: Call) -> Sequence[Endpoint]:
        if call.only is not None:
            return [endpoint for endpoint in self.endpoints if endpoint.name == call.only]
        if call.tag is None:
            return self.endpoints
        return [endpoint for endpoint in self.endpoints if call.tag in endpoint.tags]

    def _others(self, call: Call, tried: Sequence[Endpoint]) -> bool:
        return any(endpoint not in tried for endpoint in self._may(call))

    def _none(self, call: Call) -> InternalServerError:
        now = self._clock()
        waits = [endpoint.breaker.open_until - now for endpoint in self._meant(call)]
        return InternalServerError(
            "No replica of this model answers at the moment.",
            status_code=503,
            code="upstream_unavailable",
            type="server_error",
            retry_after_s=max(1.0, min(waits, default=1.0)),
        )

    async def _hedged(self, endpoint: Endpoint, call: Call, tried: list[Endpoint]) -> Reply:
        after = self._patience()
        if after is None or after >= call.timeout_s or not call.repeatable or len(self._meant(call)) < 2:
            return await self._ask(endpoint, call)
        first = asyncio.create_task(self._ask(endpoint, call), name=endpoint.name)
        tasks = {first}
        given: Reply | APIError | None = None
        """What the request goes on with; None: the caller has left."""
        try:
            await asyncio.wait(tasks, timeout=after)
            if await self._may_hedge(endpoint, first, call, tried, after):
                other = self._next(call, tried)
                tried.append(other)
                if call.trail is not None:
                    call.trail.append(("hedge", endpoint.name, other.name))
                hedge = self._ask(other, within(call, call.timeout_s - after))
                tasks.add(asyncio.create_task(hedge, name=other.name))
            given = await _first_good(tasks)
            if len(tasks) > 1 and call.trail is not None:
                call.trail.append(("hedged", getattr(given, "upstream", "")))
            return given
        except APIError as error:
            given = error
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                await self._tell_other(call, task, given)

    async def _tell_other(
        self, call: Call, task: asyncio.Task[Reply], given: Reply | APIError | None
    ) -> None:
        """Tell what came of one of two that were asked at once, unless the request goes on with it."""
        name = task.get_name()
        error = None if task.cancelled() else task.exception()
        if error is not None and error is given and isinstance(error, APIConnectionError):
            error.upstream = error.upstream or name
        elif isinstance(error, APIConnectionError):
            _tell(call, Tried(name, 0, error.received))
        elif task.cancelled() or error is not None:
            if given is not None and error is not given:
                _tell(call, Tried(name, error.status_code if isinstance(error, APIStatusError) else 0, b""))
        elif (reply := task.result()) is not given:
            _tell(call, Tried(name, reply.status, await _rest(reply)))

    async def _may_hedge(
        self,
        endpoint: Endpoint,
        first: asyncio.Task[Reply],
        call: Call,
        tried: Sequence[Endpoint],
        after: float,
    ) -> bool:
        """Say whether another replica is to be asked as well; false when `first` is done before.

        While the share for that is used up, the request waits for it: others fill it. Where none come, one a
        second is let go whose replica has fallen silent, which must not keep what came to it.
        """
        late = self._clock()
        while not first.done():
            now = self._clock()
            self._rescues.wait(now)
            silent = now - max(late, endpoint.heard_at) >= max(_SILENT_S, after)
            if self._others(call, tried) and (self._hedges.spend() or (silent and self._rescues.spend())):
                return True
            await asyncio.wait((first,), timeout=max(after, _HEDGE_AGAIN_S))
        return False

    def _patience(self) -> float | None:
        """Return the 95th percentile of the times to head; None while it is unknown, or nothing is hedged."""
        if not self._limits.hedge_share or len(self._heads) < 20:
            return None
        return sorted(self._heads)[int(len(self._heads) * 0.95)]

    async def _ask(self, endpoint: Endpoint, call: Call) -> Reply:
        began = self._clock()
        endpoint.outstanding += 1
        probe = endpoint.breaker.begin(began)
        try:
            reply = await self._limited(endpoint, call)
        except APIConnectionError as error:
            endpoint.outstanding -= 1
            if isinstance(error, APITimeoutError) and self._clock() - began < _PATIENCE_S:
                endpoint.breaker.abandon(probe=probe)
            else:
                self._failed(endpoint)
            raise
        except APIStatusError as error:
            endpoint.outstanding -= 1
            if cause.sick(error.status_code):
                self._failed(endpoint)
            else:
                endpoint.breaker.abandon(probe=probe)
            raise
        except BaseException:
            endpoint.outstanding -= 1
            endpoint.breaker.abandon(probe=probe)
            raise
        self._answered(endpoint, reply, began)
        if isinstance(reply, Whole):
            endpoint.outstanding -= 1
            return reply
        return Counted(reply, endpoint, self._failed)

    async def _limited(self, endpoint: Endpoint, call: Call) -> Reply:
        limit = self._limits.attempt_s
        if limit is None or limit >= call.timeout_s:
            return await ask(endpoint, call)
        try:
            async with asyncio.timeout(limit):
                return await ask(endpoint, call)
        except TimeoutError:
            raise cause.AttemptTimeoutError(f"no answer within {limit:g} s") from None

    def _answered(self, endpoint: Endpoint, reply: Reply, began: float) -> None:
        now = self._clock()
        if cause.sick(reply.status):
            self._failed(endpoint)
        else:
            endpoint.breaker.succeed()
            if reply.status < 400:
                endpoint.observe(now - began, now)
                self._heads.append(now - began)
        if rest := cause.rest_s(reply.status, reply.headers):
            endpoint.breaker.rest(now + rest)
        self._compare()

    def _failed(self, endpoint: Endpoint) -> None:
        endpoint.breaker.fail(self._clock())
        endpoint.window.bad += 1
        self._compare()

    def _compare(self) -> None:
        if self._outliers is not None:
            self._outliers.look(self.endpoints, self._clock())

    def _follow(self) -> None:
        if self._following is not None:
            return
        loop = asyncio.get_running_loop()
        self._following = []
        if self._engine_load:
            self._following.append(loop.create_task(pressure.follow(self.endpoints)))
        if self._check is not None:
            self._following.append(loop.create_task(health.watch(self.endpoints, self._check)))

    async def ready(self) -> bool:
        """Say whether any replica answers."""
        self._follow()
        return any(await asyncio.gather(*(endpoint.upstream.ready() for endpoint in self.endpoints)))

    async def aclose(self) -> None:
        """Close every replica's connections."""
        for task in self._following or ():
            task.cancel()
        await asyncio.gather(*(self._following or ()), return_exceptions=True)
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


def _given(outcome: Reply | APIConnectionError | APIStatusError, *, final: bool) -> Reply:
    if isinstance(outcome, APIError):
        raise _final(outcome) if final else outcome
    if not final or outcome.status < 400 or _OWN_WORD & outcome.headers.keys():
        return outcome
    return Told(outcome)


def _final(error: APIError) -> APIError:
    error.retryable = False
    return error


def _note(call: Call, endpoint: Endpoint, outcome: Reply | APIConnectionError | APIStatusError) -> None:
    if call.trail is not None:
        said = outcome.message if isinstance(outcome, APIError) else f"status {outcome.status}"
        call.trail.append(("retry", endpoint.name, said))
