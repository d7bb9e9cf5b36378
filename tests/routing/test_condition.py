"""Routes: which requests go where, by which conditions, at whose price, and that explain says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.errors import SettingsError
from trilith.settings import load_settings
from trilith.settings.routing import RouteSettings
from trilith.testing import MemoryUpstream
from trilith_gateway.api import Api
from trilith_gateway.exchange import Exchange
from trilith_gateway.key import mint
from trilith_gateway.platform import build
from trilith_gateway.routing import policy
from trilith_gateway.routing.condition import holds
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import RoutedUpstream

MONDAY_NIGHT = datetime(2026, 3, 2, 23, 30, tzinfo=UTC)


def ask(gateway: Gateway, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], **fields}
    with gateway.client(headers=headers or {}) as client:
        return client.post("/v1/chat/completions", json=body)


def said(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("route", "sent", "elsewhere"),
    [
        ({}, {}, True),
        ({"teams": ["test"]}, {}, True),
        ({"teams": ["others"]}, {}, False),
        ({"keys": ["test"]}, {}, True),
        ({"keys": ["batch"]}, {}, False),
        ({"tags": ["eu", "gpu"]}, {"headers": {"x-trilith-tags": "night, eu"}}, True),
        ({"tags": ["eu"]}, {"headers": {"x-trilith-tags": "europe"}}, False),
        ({"tags": ["eu"]}, {}, False),
        ({"tools": True}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"tools": True}, {"tools": []}, False),
        ({"stream": False}, {}, True),
        ({"max_tokens_above": 100}, {"max_tokens": 101}, True),
        ({"max_tokens_above": 100}, {"max_completion_tokens": 100}, False),
        ({"max_tokens_above": 1023}, {}, True),  # left open: the model's own limit counts
        ({"body_bytes_above": 500}, {"user": "x" * 500}, True),
        ({"body_bytes_below": 100}, {"user": "x" * 500}, False),
        ({"teams": ["test"], "tools": True}, {}, False),
    ],
)
def test_a_route_is_taken_when_all_its_conditions_hold(
    start_gateway: StartGateway, route: dict[str, Any], sent: dict[str, Any], elsewhere: bool
) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream("own"), "other": MemoryUpstream("other")},
        echo={"routes": [{"model": "other", **route}]},
    )
    assert said(ask(gateway, **sent)) == ("other" if elsewhere else "own")


@pytest.mark.parametrize(
    ("route", "holds_at_night"),
    [
        ({"hours": "22:00-06:00"}, True),
        ({"hours": "23:31-24:00"}, False),
        ({"hours": "08:00-18:00"}, False),
        ({"hours": "23:30-24:00", "days": ["mon"]}, True),
        ({"days": ["tue", "sun"]}, False),
    ],
)
def test_a_route_may_look_at_the_clock(tmp_path: Any, route: dict[str, Any], holds_at_night: bool) -> None:
    from trilith.settings.schema import Settings

    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    platform = build(Settings.model_validate({"home": tmp_path, "models": {"echo": chat}}))
    exchange = Exchange(Api.CHAT, "/", {}, lambda _: b"")
    exchange.key = mint("k", team="t")[0]
    release = platform.releases.find("echo")
    assert release is not None
    found = holds(RouteSettings(model="x", **route), exchange, release, lambda: MONDAY_NIGHT)
    assert found is holds_at_night
    platform.store.close()


def test_the_first_route_that_holds_counts_and_routes_lead_on(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {name: MemoryUpstream(name) for name in ("echo", "a", "b", "c")},
        echo={"routes": [{"model": "c", "tools": True}, {"model": "a"}, {"model": "c"}]},
        a={"routes": [{"model": "b"}]},
    )
    assert said(ask(gateway)) == "b"


def test_the_model_that_answers_is_paid_and_the_one_asked_for_is_noted(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "dear": MemoryUpstream()},
        echo={"routes": [{"model": "dear"}], "price": {"usd_per_request": "0.01"}},
        dear={"price": {"usd_per_request": "1"}},
    )
    assert ask(gateway).headers["x-trilith-cost-usd"] == "1.00"
    (row,) = gateway.ledger()
    assert (row["model"], row["asked"], row["amount_pico_usd"]) == ("dear", "echo", 10**12)
    with gateway.client(token=gateway.mint(budget_pico_usd=5 * 10**11)) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 429


def test_a_route_to_what_the_key_may_not_call_is_passed_over(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream("own"), "other": MemoryUpstream("other")},
        echo={"routes": [{"model": "other"}]},
    )
    with gateway.client(token=gateway.mint(models=frozenset({"echo"}))) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert said(client.post("/v1/chat/completions", json=body)) == "own"


def test_a_route_under_another_policy_is_protected_by_it(start_gateway: StartGateway) -> None:
    inner = MemoryUpstream()
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "inner": inner},
        echo={"routes": [{"model": "inner"}]},
        inner={"policy": "private"},
    )
    gateway.chat("write to ann@example.org")
    assert b"ann@example.org" not in inner.calls[0].body


def test_a_route_may_keep_a_request_to_tagged_replicas_and_a_fallback_has_its_own(
    start_gateway: StartGateway,
) -> None:
    eu, us, other = MemoryUpstream("eu"), MemoryUpstream("us"), MemoryUpstream("other")
    replicas = [Endpoint("eu", eu, tags=frozenset({"eu"})), Endpoint("us", us)]
    gateway = start_gateway(
        {"echo": RoutedUpstream(replicas, policy.weighted), "other": other},
        echo={
            "upstream": {"url": "http://127.0.0.1:9/v1", "tags": ["eu"]},
            "routes": [{"tags": ["eu"], "replicas": "eu"}],
            "fallbacks": ["other"],
        },
    )
    tagged = [said(ask(gateway, headers={"x-trilith-tags": "eu"})) for _ in range(4)]
    assert tagged == ["eu"] * 4
    assert {said(ask(gateway)) for _ in range(4)} == {"eu", "us"}
    replicas[0].breaker.rest(float("inf"))
    assert said(ask(gateway, headers={"x-trilith-tags": "eu"})) == "other"
    assert other.calls[0].tag is None


SETTINGS = """
models:
  a:
    kind: chat
    upstream: {{url: "http://x/v1", tags: [eu]}}
    routes: [{route}]
  b:
    kind: chat
    upstream: {{url: "http://x/v1"}}
    routes: [{{model: a}}]
  e:
    kind: embedding
    upstream: {{url: "http://x/v1"}}
"""


@pytest.mark.parametrize(
    ("route", "where", "said"),
    [
        ("{model: nobody}", "trilith.yaml:6: models.a.routes.0.model", "expected one of the chat models"),
        ("{model: e}", "trilith.yaml:6: models.a.routes.0.model", "'e'"),
        ("{model: b}", "trilith.yaml:6: models.a.routes.0.model", "a circle of routes (a -> b -> a)"),
        ("{model: a}", "trilith.yaml:6: models.a.routes.0.model", "a circle of routes (a -> a)"),
        ("{replicas: us}", "trilith.yaml:6: models.a.routes.0.replicas", "(eu)"),
        ("{}", "trilith.yaml:6: models.a.routes.0", "either model or replicas"),
        ("{model: b, hours: 9-17}", "trilith.yaml:6: models.a.routes.0.hours", "08:00-18:00"),
    ],
)
def test_a_wrong_route_is_refused_with_its_place(tmp_path: Any, route: str, where: str, said: str) -> None:
    path = tmp_path / "trilith.yaml"
    path.write_text(SETTINGS.format(route=route), "utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ={})
    assert where in str(caught.value)
    assert said in str(caught.value)
