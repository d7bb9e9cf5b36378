"""Why a request went where it went: the facts that are kept, and the words that are made of them."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from support.gateway import StartGateway
from support.scripted_server import Scripted

from trilith.errors import APIConnectionError, InternalServerError
from trilith.seams import Call, Decision
from trilith.testing import MemoryPredictor, MemoryUpstream
from trilith_gateway import deadline, decision, group
from trilith_gateway.commands import explain
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.store import sqlite

CALL = Call("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "hi"}]}', timeout_s=30)
ANSWER = Scripted(
    body={"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}},
    headers={"content-type": "application/json"},
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def replicas(*names: str, choose: policy.Choose = policy.weighted, why: str = "weighted") -> RoutedUpstream:
    return RoutedUpstream([Endpoint(n, MemoryUpstream()) for n in names], choose, why=why, clock=Clock())


async def asked(routed: RoutedUpstream, **fields: Any) -> tuple[str, list[Decision]]:
    """The replica that answered, and what was decided."""
    trail: list[Decision] = []
    call = Call(CALL.path, CALL.body, timeout_s=30, trail=trail, **fields)
    reply = await routed.send(call)
    return reply.upstream, trail  # type: ignore[attr-defined]


async def test_a_choice_among_equals_names_the_policy_and_how_many_there_were() -> None:
    name, trail = await asked(replicas("a", "b"))
    assert trail == [("replica", name, "weighted", 2, ())]
    assert decision.words(trail[0]) == "replica: a of 2, its turn by weight"


async def test_those_who_are_not_asked_are_named_with_the_reason() -> None:
    routed = replicas("a", "b", "c", "d", "e")
    _, b, c, d, e = routed.endpoints
    b.ejected_until = 1e9
    for _ in range(5):
        c.breaker.fail(100.0)
    d.breaker.rest(1e9)
    e.healthy = False
    name, trail = await asked(routed)
    out = (("b", "ejected"), ("c", "circuit open"), ("d", "asked to be left alone"), ("e", "unwell"))
    assert (name, trail) == ("a", [("replica", "a", "weighted", 1, out)])
    told = decision.words(trail[0])
    assert told.startswith("replica: a, the only one that may be asked; not asked: b (ejected), c (circuit")


async def test_a_tag_and_an_earlier_try_are_reasons_too() -> None:
    routed = replicas("a", "b", "c")
    for endpoint in routed.endpoints[:2]:
        endpoint.tags = frozenset({"eu"})
    routed.endpoints[0].upstream = MemoryUpstream(fail_with=[503])
    name, trail = await asked(routed, tag="eu")
    assert name == "b"
    assert [fact[0] for fact in trail] == ["replica", "retry", "replica"]
    assert trail[2] == ("replica", "b", "weighted", 1, (("a", "tried already"), ("c", "not meant")))


async def test_when_none_may_be_asked_each_one_s_reason_is_kept() -> None:
    routed = replicas("a")
    routed.endpoints[0].breaker.rest(1e9)
    trail: list[Decision] = []
    with pytest.raises(InternalServerError):
        await routed.send(Call(CALL.path, CALL.body, trail=trail))
    assert decision.words(trail[0]) == "replica: none may be asked; not asked: a (asked to be left alone)"


async def test_the_last_replica_that_did_not_answer_is_named_by_the_error() -> None:
    routed = replicas("a", "b")
    for endpoint in routed.endpoints:
        endpoint.upstream = MemoryUpstream(fail_with=[APIConnectionError("away")] * 9)
    with pytest.raises(APIConnectionError) as caught:
        await asked(routed)
    assert caught.value.upstream == "b"


async def test_a_beginning_that_is_known_is_told_from_one_whose_owner_is_full() -> None:
    choose = policy.Prefix(random.Random(1))
    routed = replicas("a", "b", "c", choose=choose, why="prefix")
    owner, trail = await asked(routed, affinity=b"once upon a time")
    assert trail[0][2] == "prefix"
    next(e for e in routed.endpoints if e.name == owner).outstanding = 50
    other, trail = await asked(routed, affinity=b"once upon a time")
    assert (other != owner, trail[0][2]) == (True, "prefix-full")
    _, trail = await asked(routed)
    assert trail[0][2] == "prefix-none"


async def test_of_two_that_were_asked_at_once_the_one_that_answered_is_named() -> None:
    endpoints = [Endpoint("slow", MemoryUpstream(delay_s=5)), Endpoint("quick", MemoryUpstream())]
    routed = RoutedUpstream(endpoints, policy.weighted, why="weighted", limits=Limits(hedge_share=0.5))
    routed._heads.extend([0.01] * 20)
    name, trail = await asked(routed)
    assert name == "quick"
    assert [fact[0] for fact in trail] == ["replica", "replica", "hedge", "hedged"]
    assert decision.words(trail[3]) == "hedge: quick was the first to answer"


def test_a_long_way_is_kept_within_its_bounds_from_both_ends() -> None:
    trail: list[Decision] = [("retry", f"replica {number}", "x" * 900) for number in range(60)]
    kept = decision.written(trail)
    assert len(kept) <= 2048
    facts = decision.read(kept)
    assert (facts[0][1], facts[-1][1]) == ("replica 0", "replica 59")
    (gap,) = [fact for fact in facts if fact[0] == "more"]
    assert gap[1] == 60 - (len(facts) - 1)


def test_a_word_that_is_no_text_costs_the_row_its_reasons_and_nothing_else() -> None:
    assert decision.read(decision.written([("retry", "\ud800", "x"), ("cache", "miss")])) == [["more", 2]]


def test_a_step_that_is_sure_to_no_number_is_told_without_it() -> None:
    (fact,) = decision.read(decision.written([("cascade", "triage", "answered", float("nan"))]))
    assert decision.words(fact) == "cascade: triage answered"


def test_a_fact_that_nobody_knows_is_told_as_it_is() -> None:
    assert decision.words(orjson.loads('["of a later release", 3]')) == "of a later release, 3"


def test_a_message_from_outside_is_no_reason() -> None:
    error = InternalServerError("Ada said so", status_code=500)
    assert decision.cause(error) == "status 500"


# Over HTTP


def told(gateway: Any, id: str) -> tuple[dict[str, Any], str]:
    """The last row of a request as explained, and the whole explanation as text."""
    gateway.platform.store.flush()
    found = explain.explain(gateway.platform.settings, id)
    return max(found["charges"], key=lambda row: row["attempt"]), explain._text({**found, "steps": []})


def two(serve: Any, *first: Scripted) -> tuple[Any, Any, dict[str, Any]]:
    one, other = serve(*(first or (ANSWER,))), serve(ANSWER)
    place = {"upstream": {"url": f"{one.url}/v1"}, "replicas": [{"url": f"{other.url}/v1"}]}
    return one, other, {"kind": "chat", **place, "routing": {"policy": "weighted"}}


def test_the_replica_that_answered_stands_in_the_ledger_and_the_reason_beside_it(
    start_gateway: StartGateway, serve: Any
) -> None:
    one, other, model = two(serve)
    gateway = start_gateway({}, echo=model)
    ids = [gateway.chat().headers["x-request-id"] for _ in range(2)]
    rows = [told(gateway, id)[0] for id in ids]
    assert {row["upstream"] for row in rows} == {f"{one.url}/v1", f"{other.url}/v1"}
    row, text = told(gateway, ids[0])
    assert f"upstream  {row['upstream']}" in text
    assert f"decided   replica: {row['upstream']} of 2, its turn by weight" in text


def test_a_stream_names_its_replica_too(start_gateway: StartGateway, serve: Any) -> None:
    event = b'data: {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}\n\n'
    stream = Scripted(headers={"content-type": "text/event-stream"}, parts=[event, b"data: [DONE]\n\n"])
    one, other, model = two(serve, stream)
    other.script[:] = [stream]
    gateway = start_gateway({}, echo=model)
    row, _ = told(gateway, gateway.chat(stream=True).headers["x-request-id"])
    assert row["upstream"] in (f"{one.url}/v1", f"{other.url}/v1")


def test_an_ejected_replica_is_explained(start_gateway: StartGateway, serve: Any) -> None:
    one, other, model = two(serve)
    gateway = start_gateway({}, echo=model)
    release = gateway.platform.releases.find("echo")
    assert release is not None
    assert isinstance(release.upstream, RoutedUpstream)
    release.upstream.endpoints[0].ejected_until = 1e18
    row, text = told(gateway, gateway.chat().headers["x-request-id"])
    assert row["upstream"] == f"{other.url}/v1"
    assert f"the only one that may be asked; not asked: {one.url}/v1 (ejected)" in text


def test_a_retry_is_explained_with_its_cause(start_gateway: StartGateway, serve: Any) -> None:
    one, other, model = two(serve, Scripted(503, {"error": {"message": "Ada is busy"}}))
    gateway = start_gateway({}, echo=model)
    row, text = told(gateway, gateway.chat().headers["x-request-id"])
    assert row["upstream"] == f"{other.url}/v1"
    assert f"retry: {one.url}/v1 did not answer (status 503)" in text
    assert f"{one.url}/v1 (tried already)" in text
    assert "Ada" not in text


def test_a_fallback_names_both_places(start_gateway: StartGateway, serve: Any) -> None:
    bad, good = serve(Scripted(500, {"error": {}})), serve(ANSWER)
    gateway = start_gateway(
        {},
        echo={"upstream": {"url": f"{bad.url}/v1"}, "fallbacks": ["good"]},
        good={"upstream": {"url": f"{good.url}/v1"}},
    )
    row, text = told(gateway, gateway.chat().headers["x-request-id"])
    assert (row["model"], row["upstream"]) == ("good", f"{good.url}/v1")
    assert [r["upstream"] for r in gateway.ledger() if r["category"] == "attempt"] == [f"{bad.url}/v1"]
    assert "decided   fallback: echo answered with status 500" in text


def test_a_connection_that_failed_once_is_explained(start_gateway: StartGateway) -> None:
    upstream = MemoryUpstream(fail_with=[APIConnectionError("it broke off its answer", sent=False)])
    gateway = start_gateway({"echo": upstream})
    row, text = told(gateway, gateway.chat().headers["x-request-id"])
    assert row["upstream"] == "http://127.0.0.1:9/v1"
    assert "retry: http://127.0.0.1:9/v1 did not answer (it broke off its answer)" in text


@pytest.mark.parametrize(
    ("text", "upstream", "words"),
    [
        ("money", "http://triage:8", "cascade: triage answered, sure to 0.97"),
        ("else", "http://127.0.0.1:9/v1", "cascade: triage was asked, it is sure to 0.60 only"),
    ],
)
def test_a_cascade_tells_how_sure_its_step_was(
    start_gateway: StartGateway, text: str, upstream: str, words: str
) -> None:
    predictor = MemoryPredictor(lambda said: ("refund", 0.97) if "money" in said else ("other", 0.6))
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "triage": predictor},
        echo={"cascade": [{"model": "triage"}]},
        triage={
            "kind": "predictor",
            "upstream": {"url": "http://triage:8"},
            "price": {"usd_per_krow": "1"},
        },
    )
    row, explained = told(gateway, gateway.chat(text).headers["x-request-id"])
    assert row["upstream"] == upstream
    assert f"decided   {words}" in explained


def test_a_kept_answer_has_no_upstream_and_says_so(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo={"cache": {"ttl_s": 60}})
    first = gateway.chat(temperature=0).headers["x-request-id"]
    row, text = told(gateway, gateway.chat(temperature=0).headers["x-request-id"])
    assert (row["rule"], row["upstream"]) == ("cached", "")
    assert "decided   cache: a kept answer to the same request, 0 s old" in text
    assert "upstream  none" in text
    assert "cache: nothing is kept for this request" in told(gateway, first)[1]


@pytest.mark.parametrize(
    ("temperature", "control", "why"),
    [
        (1, "", "it may be answered differently each time"),
        (0, "no-store", "its caller says `no-store`"),
        (0, "no-cache", "its caller says `no-cache`; the answer is kept"),
    ],
)
def test_a_request_that_the_cache_did_not_look_at_says_why(
    start_gateway: StartGateway, temperature: int, control: str, why: str
) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo={"cache": {"ttl_s": 60}})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "temperature": temperature}
    with gateway.client(headers={"cache-control": control}) as client:
        id = client.post("/v1/chat/completions", json=body).headers["x-request-id"]
    row, text = told(gateway, id)
    assert f"decided   cache: not asked, {why}" in text
    assert len(row["decided"]) == 1


def test_a_budget_that_degrades_is_explained(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "small": MemoryUpstream()},
        echo={"price": {"usd_per_request": "0.05"}},
        small={"price": {"usd_per_request": "0.01"}},
    )
    terms = {"budget_pico_usd": 10**12, "degrade_percent": 0, "degrade_to": "small"}
    connection = sqlite.connect(sqlite.database(gateway.home))
    group.save(connection, "teams", "lab", terms)
    connection.close()
    token = gateway.mint(team="lab")
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    with gateway.client(token=token) as client:
        id = client.post("/v1/chat/completions", json=body).headers["x-request-id"]
    row, text = told(gateway, id)
    assert (row["model"], row["upstream"]) == ("small", "http://127.0.0.1:9/v1")
    assert "echo was asked for, and team:lab has no more for dear models" in text


def test_a_request_that_came_too_late_was_sent_nowhere(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with gateway.client(headers={deadline.HEADER: "0.001"}) as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 504
    row, text = told(gateway, answer.headers["x-request-id"])
    assert (row["upstream"], row["decided"]) == ("", [])
    assert "upstream" not in text


def test_a_plain_request_costs_the_ledger_no_reason(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()})
    gateway.chat()
    (row,) = gateway.ledger()
    assert (row["upstream"], row["decided"]) == ("http://127.0.0.1:9/v1", "")
