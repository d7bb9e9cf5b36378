"""What is tried again after what: the table of `routing.cause`, and how often an upstream sees a request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from copy import copy
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from support.gateway import StartGateway

from trilith.errors import APIConnectionError, APITimeoutError, InternalServerError
from trilith.seams import Call
from trilith.testing import MemoryReply, MemoryUpstream
from trilith_gateway.routing import policy
from trilith_gateway.routing.cause import rest_s
from trilith_gateway.routing.endpoint import Breaker, Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream

BODY = b'{"messages": [{"role": "user", "content": "hi"}]}'
CALL = Call("/v1/chat/completions", BODY, timeout_s=30)
ONCE = Call("/v1/responses", BODY, timeout_s=30, repeatable=False)

UNSENT = APIConnectionError("refused", sent=False)
RESET = APIConnectionError("reset")
LATE = APITimeoutError("late")


def failing(*failures: int | Exception) -> MemoryUpstream:
    """An upstream whose first calls fail, each in an error of its own."""
    return MemoryUpstream(fail_with=[copy(failure) for failure in failures])


def fleet(*upstreams: Any, attempts: int = 3, **limits: Any) -> RoutedUpstream:
    endpoints = [Endpoint(str(at), upstream) for at, upstream in enumerate(upstreams)]
    given = Limits(attempts=attempts, retry_share=1, **limits)
    return RoutedUpstream(endpoints, policy.weighted, limits=given, rng=random.Random(1))


async def outcome(routed: RoutedUpstream, call: Call = CALL) -> object:
    try:
        reply = await routed.send(call)
    except (APIConnectionError, InternalServerError) as error:
        return type(error).__name__
    assert b"".join([part async for part in reply.chunks()])
    return reply.status


def seen(*upstreams: MemoryUpstream) -> list[int]:
    return [len(upstream.calls) for upstream in upstreams]


@pytest.mark.parametrize(
    ("failure", "call", "came_to", "asked"),
    [
        (UNSENT, CALL, 200, [1, 1]),
        (UNSENT, ONCE, 200, [1, 1]),
        (RESET, CALL, 200, [1, 1]),
        (RESET, ONCE, "APIConnectionError", [1, 0]),
        (LATE, CALL, "APITimeoutError", [1, 0]),
        (429, CALL, 200, [1, 1]),
        (429, ONCE, 200, [1, 1]),
        (503, ONCE, 200, [1, 1]),
        (500, CALL, 200, [1, 1]),
        (500, ONCE, 500, [1, 0]),
        (502, CALL, 200, [1, 1]),
        (504, CALL, 200, [1, 1]),
        (504, ONCE, 504, [1, 0]),
        (400, CALL, 400, [1, 0]),
        (422, CALL, 422, [1, 0]),
        (501, CALL, 501, [1, 0]),
    ],
)
async def test_with_two_replicas(
    failure: int | Exception, call: Call, came_to: object, asked: list[int]
) -> None:
    bad, good = failing(failure), MemoryUpstream()
    assert await outcome(fleet(bad, good), call) == came_to
    assert seen(bad, good) == asked


@pytest.mark.parametrize(
    ("failure", "call", "came_to", "asked"),
    [
        (UNSENT, CALL, 200, 2),
        (UNSENT, ONCE, 200, 2),
        (RESET, CALL, 200, 2),
        (RESET, ONCE, "APIConnectionError", 1),
        (429, CALL, 429, 1),  # it said no; the caller is told, with its Retry-After
        (500, CALL, 500, 1),
        (503, CALL, 503, 1),
    ],
)
async def test_with_one_replica(failure: int | Exception, call: Call, came_to: object, asked: int) -> None:
    only = failing(failure)
    assert await outcome(fleet(only), call) == came_to
    assert seen(only) == [asked]


class Breaks(MemoryUpstream):
    """Breaks off in the middle of an answer."""

    def __init__(self, *, stream: bool) -> None:
        super().__init__()
        self._type = "text/event-stream" if stream else "application/json"

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)

        async def parts() -> Any:
            yield b'{"choices": '
            raise APIConnectionError("it broke off its answer")

        return MemoryReply(200, parts(), content_type=self._type)


async def test_an_answer_that_breaks_off_is_had_elsewhere_as_nobody_has_seen_its_beginning() -> None:
    bad, good = Breaks(stream=False), MemoryUpstream()
    assert await outcome(fleet(bad, good)) == 200
    assert seen(bad, good) == [1, 1]


async def test_a_stream_that_breaks_is_not_begun_anew() -> None:
    bad, good = Breaks(stream=True), MemoryUpstream()
    reply = await fleet(bad, good).send(CALL)
    with pytest.raises(APIConnectionError):
        assert [part async for part in reply.chunks()]
    assert seen(bad, good) == [1, 0]


async def test_a_replica_that_keeps_silent_is_given_up_in_time_for_another() -> None:
    silent, good = MemoryUpstream(delay_s=60), MemoryUpstream()
    assert await outcome(fleet(silent, good, attempt_s=0.05)) == 200
    assert (silent.aborted, seen(silent, good)) == (1, [1, 1])


async def test_a_replica_that_keeps_silent_after_its_head_is_given_up_as_well() -> None:
    class Stuck(MemoryUpstream):
        async def send(self, call: Call) -> MemoryReply:
            self.calls.append(call)
            return MemoryReply(200, self.never(), on_abort=self._abort)

        async def never(self) -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

    stuck, good = Stuck(), MemoryUpstream()
    assert await outcome(fleet(stuck, good, attempt_s=0.05)) == 200
    assert (stuck.aborted, seen(stuck, good)) == (1, [1, 1])


async def test_a_replica_whose_streams_break_is_not_well() -> None:
    bad, good = Breaks(stream=True), MemoryUpstream()
    routed = fleet(bad, good)
    reply = await routed.send(CALL)
    with pytest.raises(APIConnectionError):
        assert [part async for part in reply.chunks()]
    assert [endpoint.window.bad for endpoint in routed.endpoints] == [1, 0]
    assert not routed.endpoints[0].outstanding


async def test_what_was_tried_twice_in_vain_tells_clients_not_to_add_tries_of_their_own() -> None:
    routed = fleet(failing(500), failing(502), attempts=2)
    reply = await routed.send(CALL)
    assert (reply.status, reply.headers["x-should-retry"]) == (502, "false")
    one = await fleet(failing(500)).send(CALL)
    assert "x-should-retry" not in one.headers  # tried once only: the client's tries are the only ones
    full = [MemoryUpstream(fail_with=[429]) for _ in range(2)]
    for upstream in full:
        upstream.fail_headers = {"retry-after": "2"}
    resting = await fleet(*full, attempts=2).send(CALL)
    assert "x-should-retry" not in resting.headers  # come back, it says, and when
    lost = fleet(failing(RESET), failing(RESET), attempts=2)
    with pytest.raises(APIConnectionError) as caught:
        await lost.send(CALL)
    assert not caught.value.retryable


@pytest.mark.parametrize("failures", [[500, 500], [RESET, RESET], [503, 502]])
def test_one_request_reaches_an_upstream_no_more_often_than_one_side_tries(
    start_gateway: StartGateway, failures: list[int | Exception]
) -> None:
    """The gateway tries twice and our client three times: together they try twice, not six times."""
    from trilith import Client
    from trilith.errors import APIError

    replicas = [failing(*failures * 9) for _ in range(2)]
    gateway = start_gateway({"echo": fleet(*replicas, attempts=2)})
    with Client(gateway.url, api_key=gateway.token, max_retries=2) as client, pytest.raises(APIError):
        client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "hi"}])
    assert sum(seen(*replicas)) == 2


@pytest.mark.parametrize(
    ("path", "failure", "status", "asked"),
    [
        ("/v1/chat/completions", RESET, 200, 2),
        ("/v1/chat/completions", UNSENT, 200, 2),
        ("/v1/chat/completions", LATE, 504, 1),
        ("/v1/chat/completions", 503, 503, 1),
        ("/v1/responses", RESET, 502, 1),  # it keeps what it answers
        ("/v1/responses", UNSENT, 200, 2),
    ],
)
def test_without_replicas(
    start_gateway: StartGateway, path: str, failure: int | Exception, status: int, asked: int
) -> None:
    only = failing(failure)
    gateway = start_gateway({"echo": only})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "input": "x"}
    with gateway.client() as client:
        assert client.post(path, json=body).status_code == status
    assert seen(only) == [asked]


@pytest.mark.parametrize("failure", [RESET, LATE])
def test_one_try_is_one_try(start_gateway: StartGateway, failure: Exception) -> None:
    only = failing(failure, failure)
    gateway = start_gateway({"echo": fleet(only, attempts=1)})
    answer = gateway.chat()
    assert answer.status_code == (504 if failure is LATE else 502)
    assert answer.headers.get("x-should-retry") == ("false" if failure is LATE else None)
    assert seen(only) == [1]


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": format_datetime(datetime.fromtimestamp(1_000_020, UTC), usegmt=True)}, 20),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:07 GMT"}, 0),
        ({"retry-after": "86400"}, 60),
        ({"retry-after": "soon"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "-3"}, 0),
        ({}, 0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], rest: float) -> None:
    assert rest_s(429, headers, lambda: 1_000_000.0) == rest
    assert rest_s(500, headers, lambda: 1_000_000.0) == 0


def test_a_burst_of_failures_opens_a_breaker_once_and_not_for_longer_and_longer() -> None:
    breaker = Breaker(failures_to_open=3, pause_s=1)
    for _ in range(50):
        breaker.fail(10.0)
    assert breaker.allows(11.0)


async def test_a_caller_in_a_hurry_does_not_open_the_breaker_for_others() -> None:
    late = MemoryUpstream(fail_with=[APITimeoutError("late")] * 50)
    routed = fleet(late)
    for _ in range(50):
        await outcome(routed)
    assert routed.endpoints[0].breaker.allows(asyncio.get_running_loop().time())


async def test_a_model_that_is_seldom_asked_loses_nothing_to_a_replica_that_stays_away() -> None:
    now = 0.0
    dead, good = MemoryUpstream(fail_with=[copy(UNSENT) for _ in range(1000)]), MemoryUpstream()
    routed = RoutedUpstream(
        [Endpoint("dead", dead), Endpoint("good", good)],
        policy.power_of_two(random.Random(1)),
        clock=lambda: now,
    )
    statuses = set()
    for _ in range(200):
        now += 60.0
        statuses.add(await outcome(routed))
    assert statuses == {200}
    assert len(dead.calls) > 80  # who never answered seems quick, so each request finds out anew


async def test_without_a_retry_share_nothing_is_tried_again() -> None:
    bad, good = failing(500), MemoryUpstream()
    endpoints = [Endpoint("bad", bad), Endpoint("good", good)]
    routed = RoutedUpstream(endpoints, policy.weighted, limits=Limits(attempts=3, retry_share=0))
    assert await outcome(routed) == 500
