"""Responses that an upstream keeps: who may have them again, and which upstream is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sdk.client.conftest import serve
from support.gateway import Gateway, StartGateway
from support.scripted_server import Scripted, ScriptedServer

from trilith.seams import Upstream
from trilith.testing import MemoryUpstream
from trilith.types import Kind
from trilith_gateway import kept
from trilith_gateway.commands import explain
from trilith_gateway.kept import Kept
from trilith_gateway.release import Release
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import RoutedUpstream
from trilith_gateway.upstream.http import HttpUpstream

__all__ = ["serve"]

JSON = {"content-type": "application/json"}


def made(name: str, **fields: Any) -> Scripted:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    return Scripted(body={**fields, "id": name, "object": "response", "usage": usage}, headers=JSON)


def place(server: ScriptedServer, *others: ScriptedServer, **fields: Any) -> dict[str, Any]:
    replicas = [{"url": f"{other.url}/v1"} for other in others]
    routed = {"replicas": replicas, "routing": {"policy": "weighted"}} if others else {}
    return {"upstream": {"url": f"{server.url}/v1"}, **routed, **fields}


def begin(start: StartGateway, *servers: ScriptedServer, **models: dict[str, Any]) -> Gateway:
    """Start, and let the servers forget that they were asked whether they are ready."""
    gateway = start({}, echo=place(*servers), **models)
    assert gateway.platform.warmed.wait(30)
    for server in servers:
        server.received.clear()
    return gateway


def respond(gateway: Gateway, token: str | None = None, **fields: Any) -> Any:
    body = {"model": "echo", "input": "hi", **fields}
    with gateway.client(**({} if token is None else {"token": token})) as client:
        return client.post("/v1/responses", json=body)


def ask(gateway: Gateway, path: str, token: str | None = None, method: str = "GET") -> Any:
    with gateway.client(**({} if token is None else {"token": token})) as client:
        return client.request(method, f"/v1/responses/{path}")


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    """What came after the response was made."""
    return [(one.method, one.path) for one in server.received[1:]]


def release(upstream: Upstream, place: str = "") -> Release:
    return Release("m", Kind.CHAT, "d", upstream, "m", "openai", None, None, 9, None, place=place)


def test_the_name_of_an_answer_is_its_own_field_and_no_word_of_its_caller() -> None:
    told = {"metadata": {"id": "resp_of_another"}, "id": "resp_1"}
    assert kept.named(told) == "resp_1"
    assert kept.named({"type": "response.created", "response": told}) == "resp_1"
    assert kept.named({"metadata": {"id": "resp_of_another"}}) == ""
    assert kept.named({"id": "../files"}) == ""
    assert kept.named({"id": 7}) == ""


def test_the_server_is_the_replica_that_keeps_it_and_none_when_that_is_gone() -> None:
    endpoints = [Endpoint(name, HttpUpstream(f"http://{name}/v1")) for name in ("a", "b")]
    routed = release(RoutedUpstream(endpoints, policy.weighted))
    assert kept.server(routed, Kept("m", "m", "b")) is endpoints[1].upstream
    assert kept.server(routed, Kept("m", "m", "c")) is None
    one = HttpUpstream("http://a/v1")
    assert kept.server(release(one, "a"), Kept("m", "m", "a")) is one
    assert kept.server(release(one, "a"), Kept("m", "m", "b")) is None
    assert kept.server(release(MemoryUpstream()), Kept("m", "m", "")) is None


@pytest.mark.parametrize(
    ("method", "below"),
    [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items?order=asc&limit=5")],
)
def test_a_kept_response_is_asked_for_where_it_is(
    start_gateway: StartGateway, serve: Any, method: str, below: str
) -> None:
    said = {"object": "whatever", "id": "resp_1"}
    server = serve(made("resp_1"), Scripted(body=said, headers=JSON))
    gateway = begin(start_gateway, server)
    assert respond(gateway).json()["id"] == "resp_1"
    answer = ask(gateway, f"resp_1{below}", method=method)
    assert (answer.status_code, answer.json()) == (200, said)
    assert answer.headers["x-request-id"]
    assert asked(server) == [(method, f"/v1/responses/resp_1{below}")]
    assert len(gateway.ledger()) == 1


def test_a_streamed_response_is_kept_too(start_gateway: StartGateway, serve: Any) -> None:
    whole = {"metadata": {"id": "resp_2"}, "id": "resp_1", "usage": {"input_tokens": 1, "output_tokens": 1}}
    events = [{"type": "response.created", "response": {**whole, "usage": None}}]
    events += [{"type": "response.completed", "response": whole}]
    parts = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    stream = Scripted(headers={"content-type": "text/event-stream"}, parts=parts)
    server = serve(stream, made("resp_1"))
    gateway = begin(start_gateway, server)
    respond(gateway, stream=True)
    assert ask(gateway, "resp_1").status_code == 200
    assert ask(gateway, "resp_2").status_code == 404


def test_an_upstream_s_own_refusal_comes_as_it_is(start_gateway: StartGateway, serve: Any) -> None:
    error = {"error": {"message": "gone", "type": "invalid_request_error", "param": None, "code": None}}
    server = serve(made("resp_1"), Scripted(404, error, JSON))
    gateway = begin(start_gateway, server)
    respond(gateway)
    answer = ask(gateway, "resp_1")
    assert (answer.status_code, answer.json()) == (404, error)


def test_another_team_s_response_is_not_there(start_gateway: StartGateway, serve: Any) -> None:
    server = serve(made("resp_1"))
    gateway = begin(start_gateway, server, other=place(server))
    maker = gateway.mint(team="lab")
    respond(gateway, maker)
    assert ask(gateway, "resp_1", gateway.mint(team="lab")).status_code == 200
    before = len(server.received)
    stranger, narrow = gateway.mint(team="shop"), gateway.mint(team="lab", models=("other",))
    for token in (stranger, narrow):
        for method, below in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            answer = ask(gateway, f"resp_1{below}", token, method)
            assert (answer.status_code, answer.json()["error"]["param"]) == (404, "response_id")
        refused = respond(gateway, token, model="other", previous_response_id="resp_1")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert len(server.received) == before
    assert gateway.rows("select * from reservations") == []


@pytest.mark.parametrize("name", ["resp_unknown", "..%2Ffiles", "a%20b", "x" * 200, "%00", "resp_1%3Fx=1"])
def test_a_name_that_nobody_has_is_a_404_in_openai_s_form(
    start_gateway: StartGateway, serve: Any, name: str
) -> None:
    server = serve(made("resp_1"))
    gateway = begin(start_gateway, server)
    answer = ask(gateway, name)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert server.received == []


@pytest.mark.parametrize(
    "fields", [{"store": False}, {"model": "plain"}], ids=["not stored", "translated to chat"]
)
def test_what_no_upstream_keeps_is_not_asked_for(
    start_gateway: StartGateway, serve: Any, fields: dict[str, Any]
) -> None:
    server = serve(made("resp_1"))
    plain = {"upstream": {"url": f"{server.url}/v1", "protocol": "chat"}}
    gateway = start_gateway({"plain": MemoryUpstream()}, echo=place(server), plain=plain)
    assert gateway.platform.warmed.wait(30)
    name = respond(gateway, **fields).json()["id"]
    before = len(server.received)
    assert ask(gateway, name).status_code == 404
    assert len(server.received) == before


@pytest.mark.parametrize(
    ("asked_for", "param"), [("?stream=true", "stream"), ("/input_items?after=a%26b", "after")]
)
def test_a_parameter_that_cannot_go_on_is_refused(
    start_gateway: StartGateway, serve: Any, asked_for: str, param: str
) -> None:
    gateway = begin(start_gateway, serve(made("resp_1")))
    respond(gateway)
    answer = ask(gateway, f"resp_1{asked_for}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_an_upstream_that_is_away_is_a_502(start_gateway: StartGateway, serve: Any) -> None:
    server = serve(made("resp_1"), Scripted(breaks=True, parts=[]))
    gateway = begin(start_gateway, server)
    respond(gateway)
    answer = ask(gateway, "resp_1")
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")


def test_with_several_replicas_the_one_that_made_it_is_asked(start_gateway: StartGateway, serve: Any) -> None:
    servers = [serve(made("resp_a")), serve(made("resp_b"))]
    gateway = begin(start_gateway, *servers)
    assert {respond(gateway).json()["id"] for _ in range(2)} == {"resp_a", "resp_b"}
    for name, server in zip(("resp_a", "resp_b"), servers, strict=True):
        ask(gateway, name)
        assert asked(server) == [("GET", f"/v1/responses/{name}")]


def test_a_conversation_stays_at_the_replica_that_keeps_it(start_gateway: StartGateway, serve: Any) -> None:
    servers = [serve(made("resp_a")), serve(made("resp_b"))]
    gateway = begin(start_gateway, *servers)
    respond(gateway)
    respond(gateway)
    for _ in range(3):
        assert respond(gateway, previous_response_id="resp_b").json()["id"] == "resp_b"
    assert [len(server.received) for server in servers] == [1, 4]
    assert servers[1].received[-1].json()["previous_response_id"] == "resp_b"
    (*_, row) = gateway.ledger()
    assert row["upstream"] == f"{servers[1].url}/v1"
    assert "not meant" in row["decided"]


def test_a_conversation_whose_replica_is_away_is_not_taken_elsewhere(
    start_gateway: StartGateway, serve: Any
) -> None:
    servers = [serve(made("resp_a")), serve(made("resp_b"))]
    gateway = begin(start_gateway, *servers)
    respond(gateway)
    respond(gateway)
    release = gateway.platform.releases.find("echo")
    assert release is not None
    assert isinstance(release.upstream, RoutedUpstream)
    release.upstream.endpoints[1].breaker.rest(1e18)
    assert respond(gateway, previous_response_id="resp_b").status_code == 503
    assert [len(server.received) for server in servers] == [1, 1]


def test_the_same_name_at_another_upstream_is_another_answer(start_gateway: StartGateway, serve: Any) -> None:
    mine, theirs = serve(made("resp_1")), serve(made("resp_1"))
    gateway = begin(start_gateway, mine, other=place(theirs))
    respond(gateway)
    respond(gateway, gateway.mint(team="shop"), model="other")
    before = len(theirs.received)
    refused = respond(gateway, model="other", previous_response_id="resp_1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert ask(gateway, "resp_1").status_code == 200
    assert len(theirs.received) == before


def test_a_response_is_explained_by_its_own_name_of_which_the_ledger_holds_a_digest(
    start_gateway: StartGateway, serve: Any
) -> None:
    gateway = begin(start_gateway, serve(made("resp_of_mine")))
    id = respond(gateway).headers["x-request-id"]
    (row,) = gateway.ledger()
    assert "resp_of_mine" not in str(row)
    found = explain.explain(gateway.platform.settings, "resp_of_mine")
    assert [charge["request_id"] for charge in found["charges"]] == [id]


def test_a_conversation_whose_owner_cannot_be_checked_is_refused_unless_the_model_allows_it(
    start_gateway: StartGateway, serve: Any
) -> None:
    server = serve(made("resp_1"), made("resp_2"))
    gateway = begin(start_gateway, server, open=place(server, conversations=True))
    got = respond(gateway, conversation="conv_of_another")
    assert (got.status_code, got.json()["error"]["code"]) == (400, "conversation_not_allowed")
    assert server.received == []
    with gateway.client() as client:
        body = {"model": "open", "input": "hi", "conversation": "conv_1"}
        assert client.post("/v1/responses", json=body).status_code == 200
    (sent,) = server.received
    assert json.loads(sent.body)["conversation"] == "conv_1"
