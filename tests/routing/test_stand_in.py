"""Which model may answer in place of another, and what is held for one that has steps of its own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.seams import Upstream
from trilith.testing import MemoryUpstream
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import RoutedUpstream
from trilith_gateway.terms import Terms

BODY = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
DIME = 10**11


def costs(dimes: int, **more: Any) -> dict[str, Any]:
    return {"price": {"usd_per_request": f"{dimes / 10}"}, **more}


def call(gateway: Gateway, token: str, **headers: str) -> httpx.Response:
    with gateway.client(token=token, headers=headers) as client:
        return client.post("/v1/chat/completions", json=BODY)


def said(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def degraded(gateway: Gateway, dimes: int) -> str:
    return gateway.mint(terms=Terms(dimes * DIME, degrade_percent=0, degrade_to="small"))


@pytest.mark.parametrize(("dimes", "status"), [(5, 429), (6, 200)])
def test_a_cheaper_model_that_asks_others_first_is_held_to_all_of_them(
    start_gateway: StartGateway, dimes: int, status: int
) -> None:
    step = {"model": "step", "matches": "never"}
    upstreams = {name: MemoryUpstream(name) for name in ("echo", "small", "step")}
    gateway = start_gateway(upstreams, echo=costs(10), small=costs(1, cascade=[step]), step=costs(5))
    assert call(gateway, degraded(gateway, dimes)).status_code == status
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == (6 * DIME if status == 200 else 0)


def test_a_model_whose_steps_make_it_dearer_does_not_take_over(start_gateway: StartGateway) -> None:
    step = {"model": "step", "matches": "never"}
    upstreams = {name: MemoryUpstream(name) for name in ("echo", "small", "step")}
    gateway = start_gateway(upstreams, echo=costs(5), small=costs(1, cascade=[step]), step=costs(5))
    assert said(call(gateway, degraded(gateway, 100))) == "echo"


def test_a_model_of_another_protocol_does_not_take_over(start_gateway: StartGateway) -> None:
    small = MemoryUpstream("small")
    theirs = {"url": "http://127.0.0.1:9/v1", "protocol": "anthropic"}
    gateway = start_gateway(
        {"echo": MemoryUpstream("echo"), "small": small}, echo=costs(5), small=costs(1, upstream=theirs)
    )
    assert said(call(gateway, degraded(gateway, 100))) == "echo"
    assert not small.calls


def test_a_model_that_takes_over_has_replicas_of_its_own(start_gateway: StartGateway) -> None:
    upstreams: dict[str, Upstream] = {
        "echo": MemoryUpstream("echo"),
        "small": RoutedUpstream([Endpoint("s", MemoryUpstream("small"))], policy.weighted),
    }
    tagged = {"url": "http://127.0.0.1:9/v1", "tags": ["eu"]}
    gateway = start_gateway(
        upstreams, echo=costs(5, upstream=tagged, routes=[{"replicas": "eu"}]), small=costs(1)
    )
    assert said(call(gateway, degraded(gateway, 100))) == "small"


def test_a_fallback_that_is_asked_past_its_steps_is_not_held_to_them(start_gateway: StartGateway) -> None:
    step = MemoryUpstream("step")
    upstreams = {"echo": MemoryUpstream(fail_with=[503]), "other": MemoryUpstream("other"), "step": step}
    gateway = start_gateway(
        upstreams,
        echo=costs(1, fallbacks=["other"]),
        other=costs(2, cascade=[{"model": "step"}]),
        step=costs(5),
    )
    assert said(call(gateway, gateway.mint(budget_pico_usd=2 * DIME))) == "other"
    assert not step.calls


def test_a_provider_may_stand_in_for_a_server_of_ones_own(start_gateway: StartGateway) -> None:
    upstreams = {"echo": MemoryUpstream(fail_with=[503]), "other": MemoryUpstream("other")}
    gateway = start_gateway(
        upstreams,
        echo=costs(1, fallbacks=["other"]),
        other=costs(2, upstream={"provider": "anthropic/claude-sonnet-4-5"}),
    )
    assert said(call(gateway, gateway.token)) == "other"


def test_what_only_one_of_two_models_understands_does_not_go_to_the_other(
    start_gateway: StartGateway,
) -> None:
    other = MemoryUpstream("other")
    upstreams = {"echo": MemoryUpstream(fail_with=[503, 503]), "other": other}
    gateway = start_gateway(
        upstreams,
        echo=costs(1, fallbacks=["other"]),
        other=costs(2, upstream={"provider": "anthropic/claude-sonnet-4-5"}),
    )
    with gateway.client() as client:
        assert client.post("/v1/responses", json={"model": "echo", "input": "x"}).status_code == 503
    assert not other.calls
