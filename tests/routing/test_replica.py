"""Cost, tags, health checks and ejection: which replicas are asked, in virtual time and over real sockets."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scripted_server import Scripted, ScriptedServer

from trilith.errors import InternalServerError
from trilith.seams import Call
from trilith.settings.model import ChatModel
from trilith.testing import MemoryUpstream
from trilith.types import Kind
from trilith_gateway.opening import _Opener
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint, Window
from trilith_gateway.routing.health import Check, Health, watch
from trilith_gateway.routing.outlier import Ejection, Outliers
from trilith_gateway.routing.routed import RoutedUpstream
from trilith_gateway.stages.route import _first_turn
from trilith_gateway.upstream.http import HttpUpstream
from trilith_gateway.upstream.renamed import RenamedUpstream

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
CALL = Call("/v1/chat/completions", BODY, timeout_s=30)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def endpoint(name: str, *, wait: float = 0.0, **fields: Any) -> Endpoint:
    made = Endpoint(name, MemoryUpstream(), **fields)
    if wait:
        made.observe(wait, 100.0)
    return made


def test_the_cheapest_is_asked_as_long_as_it_keeps_the_stated_wait() -> None:
    own, provider = endpoint("gpu", wait=0.5, cost=1), endpoint("provider", wait=0.2, cost=10)
    assert policy.cheapest(1.0)([own, provider], None) is own
    own.observe(1.3, 101.0)
    assert policy.cheapest(1.0)([own, provider], None) is provider
    assert policy.cheapest(2.0)([own, provider], None) is own
    own.pressure = 5.0  # the engine says that requests wait there
    assert policy.cheapest(2.0)([own, provider], None) is provider


def test_a_cheap_one_that_nobody_has_heard_of_is_tried() -> None:
    assert (
        policy.cheapest(0)([endpoint("new", cost=1), endpoint("old", wait=0.2, cost=2)], None).name == "new"
    )


def test_equally_cheap_ones_share_the_work() -> None:
    one, other = endpoint("one", wait=0.2), endpoint("other", wait=0.2)
    one.outstanding = 3
    assert policy.cheapest(1)([one, other], None) is other


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 9)), min_size=1, max_size=6), st.floats(0, 5))
def test_nothing_within_the_bound_is_cheaper_than_what_is_chosen(
    replicas: list[tuple[int, float]], bound: float
) -> None:
    endpoints = [endpoint(str(at), cost=cost, wait=wait) for at, (cost, wait) in enumerate(replicas)]
    chosen = policy.cheapest(bound)(endpoints, None)
    quickest = min(e.wait_s() for e in endpoints)
    assert chosen.wait_s() <= quickest + bound
    assert all(e.cost >= chosen.cost for e in endpoints if e.wait_s() <= quickest + bound)


async def test_one_slow_answer_does_not_keep_a_replica_idle_for_good() -> None:
    clock = Clock()
    endpoints = [endpoint("once slow", wait=30.0), endpoint("other", wait=0.05)]
    routed = RoutedUpstream(endpoints, policy.power_of_two(random.Random(1)), clock=clock)
    for _ in range(300):
        clock.now += 1
        await routed.send(CALL)
    assert len(endpoints[0].upstream.calls) > 50  # type: ignore[attr-defined]


async def test_a_tag_keeps_a_request_to_its_replicas_even_when_they_are_away() -> None:
    clock = Clock()
    endpoints = [endpoint("a", tags=frozenset({"eu"})), endpoint("b")]
    routed = RoutedUpstream(endpoints, policy.weighted, clock=clock)
    for _ in range(3):
        await routed.send(Call(CALL.path, CALL.body, tag="eu"))
    assert [len(e.upstream.calls) for e in endpoints] == [3, 0]  # type: ignore[attr-defined]
    endpoints[0].breaker.rest(clock.now + 9)
    with pytest.raises(InternalServerError) as caught:
        await routed.send(Call(CALL.path, CALL.body, tag="eu"))
    assert caught.value.retry_after_s == 9


def test_health_changes_after_enough_answers_in_a_row_and_not_before() -> None:
    watched = endpoint("a")
    health = Health(watched, Check(unhealthy_after=3, healthy_after=2))
    verdicts = []
    for good in (False, False, True, False, False, False, True, False, True, True):
        health.take(good=good)
        verdicts.append(watched.healthy)
    assert verdicts == [True] * 5 + [False] * 4 + [True]


async def test_a_replica_that_its_check_finds_unwell_is_not_asked_and_comes_back(
    serve: Any,
) -> None:
    ok = Scripted(body={"choices": []}, headers={"content-type": "application/json"})
    sick: ScriptedServer = serve(Scripted(500))
    well: ScriptedServer = serve(ok)
    check = Check(interval_s=0.01, unhealthy_after=2, healthy_after=2)
    endpoints = [Endpoint(s.url, HttpUpstream(s.url + "/v1")) for s in (sick, well)]
    following = asyncio.create_task(watch(endpoints, check))
    await wait(lambda: not endpoints[0].healthy)
    routed = RoutedUpstream(endpoints, policy.weighted)
    for _ in range(6):
        await routed.send(CALL)
    assert {request.path for request in sick.received} == {"/health"}
    sick.script[:] = [ok]
    await wait(lambda: endpoints[0].healthy)
    for _ in range(4):
        await routed.send(CALL)
    assert "/v1/chat/completions" in {request.path for request in sick.received}
    following.cancel()
    await routed.aclose()


async def wait(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what changes is not ours to set an event for
            await asyncio.sleep(0.01)


async def test_when_every_check_fails_requests_go_out_all_the_same() -> None:
    endpoints = [endpoint("a", healthy=False), endpoint("b", healthy=False)]
    reply = await RoutedUpstream(endpoints, policy.weighted).send(CALL)
    assert reply.status == 200


def seen(endpoint: Endpoint, good: int, bad: int = 0, mean_s: float = 0.1) -> None:
    endpoint.window = Window(good, bad, good * mean_s)


def looked(endpoints: list[Endpoint], **rules: Any) -> list[str]:
    outliers = Outliers(Ejection(**rules))
    outliers.look(endpoints, 0.0)
    return [e.name for e in outliers.look(endpoints, 10.0)]


def test_a_replica_that_fails_far_more_often_than_the_others_is_ejected() -> None:
    endpoints = [endpoint(name) for name in "abc"]
    seen(endpoints[0], 60, 40)
    seen(endpoints[1], 99, 1)
    seen(endpoints[2], 98, 2)
    assert looked(endpoints) == ["a"]


def test_a_replica_that_is_far_slower_is_ejected() -> None:
    endpoints = [endpoint(name) for name in "abc"]
    for one, mean_s in zip(endpoints, (0.9, 0.1, 0.12), strict=True):
        seen(one, 50, mean_s=mean_s)
    assert looked(endpoints) == ["a"]


def test_nobody_is_ejected_when_all_are_equally_bad_or_too_little_is_known() -> None:
    endpoints = [endpoint(name) for name in "abc"]
    for one in endpoints:
        seen(one, 50, 50, mean_s=9)
    assert looked(endpoints) == []
    seen(endpoints[0], 0, 5)
    seen(endpoints[1], 90)
    seen(endpoints[2], 90)
    assert looked(endpoints) == []


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_never_more_than_the_stated_share_is_ejected(counts: list[tuple[int, int]], share: float) -> None:
    endpoints = [endpoint(str(at)) for at in range(len(counts))]
    outliers = Outliers(Ejection(least_requests=1, success_gap=0.05, most_share=share, pause_s=25))
    for now in range(0, 200, 10):
        for one, (good, bad) in zip(endpoints, counts, strict=True):
            seen(one, good, bad)
        outliers.look(endpoints, float(now))
        assert sum(now < one.ejected_until for one in endpoints) <= len(endpoints) * share


async def test_an_ejected_replica_comes_back_by_itself() -> None:
    clock = Clock()
    endpoints = [endpoint("bad"), endpoint("good")]
    rules = Ejection(interval_s=10, least_requests=5, pause_s=30)
    routed = RoutedUpstream(endpoints, policy.weighted, clock=clock, ejection=rules)
    asked: dict[int, Counter[str]] = {}
    for second in range(60):
        clock.now += 1
        if second < 12:
            endpoints[0].window.bad += 3
        before = {e.name: len(e.upstream.calls) for e in endpoints}  # type: ignore[attr-defined]
        for _ in range(4):
            await routed.send(CALL)
        after = {e.name: len(e.upstream.calls) for e in endpoints}  # type: ignore[attr-defined]
        asked[second] = Counter({name: after[name] - before[name] for name in after})
    assert (asked[5]["bad"], asked[20]["bad"], asked[55]["bad"]) == (2, 0, 2)


def test_settings_become_replicas_with_cost_tags_names_and_checks() -> None:
    model = ChatModel.model_validate(
        {
            "kind": Kind.CHAT,
            "upstream": {"url": "http://user:pw@gpu/v1", "cost_weight": 1, "tags": ["eu"], "model": "own"},
            "replicas": [
                {"url": "http://provider/v1", "cost_weight": 9, "tags": ["us"], "model": "vendor/own"},
                {"url": "http://provider/v1"},
            ],
            "routing": {"policy": "cost", "health": {"path": "/up"}, "ejection": {"pause_s": 3}},
        }
    )
    opener = _Opener.__new__(_Opener)
    opener._engine_urls = {}
    routed = opener.replicated("m", model)
    assert isinstance(routed, RoutedUpstream)
    assert [(e.cost, set(e.tags)) for e in routed.endpoints] == [(1, {"eu"}), (9, {"us"}), (1, set())]
    names = [e.name for e in routed.endpoints]
    assert len(set(names)) == 3
    assert "pw" not in "".join(names)
    assert routed._check == Check(path="/up")


async def test_a_replica_is_asked_under_its_own_name_of_the_model(serve: Any) -> None:
    server: ScriptedServer = serve(Scripted(body={"choices": []}))
    upstream = RenamedUpstream(HttpUpstream(server.url + "/v1"), "vendor/own")
    await upstream.send(CALL)
    assert server.received[0].json()["model"] == "vendor/own"
    await upstream.aclose()


async def test_a_replica_is_asked_under_its_own_name_in_a_form_too(serve: Any) -> None:
    server: ScriptedServer = serve(Scripted(body={"text": "hi"}))
    upstream = RenamedUpstream(HttpUpstream(server.url + "/v1"), "vendor/own")
    form = (
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\xff\x00"model"\r\n'
        b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n%s\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    await upstream.send(replace(CALL, path="/v1/audio/transcriptions", body=form % b"ours", headers=headers))
    assert server.received[0].body == form % b"vendor/own"
    await upstream.aclose()


def test_all_turns_of_a_conversation_begin_alike() -> None:
    first = [{"role": "user", "content": "a"}]
    later = [*first, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert first[: _first_turn(first)] == later[: _first_turn(later)] == first
    system = [{"role": "system", "content": "s"}, *later]
    assert system[: _first_turn(system)] == system[:2]
