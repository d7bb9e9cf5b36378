"""Another model answers when the one that was asked cannot, at its own price and within the same budget."""

from __future__ import annotations

import time
from typing import Any

from support.gateway import StartGateway

from trilith.errors import APIConnectionError
from trilith.seams import Upstream
from trilith.testing import MemoryPredictor, MemoryUpstream
from trilith_gateway.budget import Budgets

CHEAP = {"price": {"usd_per_request": "0.01"}, "fallbacks": ["dear"]}
DEAR = {"price": {"usd_per_request": "1"}}


def test_the_model_that_answers_is_charged_and_named(start_gateway: StartGateway) -> None:
    echo = MemoryUpstream(fail_with=[503])
    gateway = start_gateway({"echo": echo, "dear": MemoryUpstream("from dear")}, echo=CHEAP, dear=DEAR)
    answer = gateway.chat()
    assert answer.json()["choices"][0]["message"]["content"] == "from dear"
    assert answer.headers["x-trilith-fallback"] == "dear"
    rows = [(row["category"], row["model"], row["amount_pico_usd"]) for row in gateway.ledger()]
    assert rows == [("attempt", "echo", 0), ("usage", "dear", 10**12)]
    assert gateway.rows("select * from reservations") == []


def test_a_connection_that_fails_and_a_stream_fall_back_too(start_gateway: StartGateway) -> None:
    echo = MemoryUpstream(fail_with=[APIConnectionError("away")] * 2)
    gateway = start_gateway({"echo": echo, "dear": MemoryUpstream("from dear")}, echo=CHEAP, dear=DEAR)
    assert "from " in gateway.chat(stream=True).text


def test_the_callers_own_mistakes_do_not(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"echo": MemoryUpstream(fail_with=[400]), "dear": MemoryUpstream()}, echo=CHEAP, dear=DEAR
    )
    assert gateway.chat().status_code == 400


def test_a_budget_that_does_not_reach_for_the_fallback_is_not_overshot(start_gateway: StartGateway) -> None:
    echo = MemoryUpstream(fail_with=[503])
    gateway = start_gateway({"echo": echo, "dear": MemoryUpstream()}, echo=CHEAP, dear=DEAR)
    token = gateway.mint(budget_pico_usd=5 * 10**11)
    with gateway.client(token=token) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        refused = client.post("/v1/chat/completions", json=body)
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == 10**10


def test_a_key_that_may_not_call_the_fallback_does_not_reach_it(start_gateway: StartGateway) -> None:
    dear = MemoryUpstream()
    gateway = start_gateway({"echo": MemoryUpstream(fail_with=[503]), "dear": dear}, echo=CHEAP, dear=DEAR)
    with gateway.client(token=gateway.mint(models=frozenset({"echo"}))) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 503
    assert not dear.calls


STEPS = [{"model": "triage", "confidence": 0.9}]
TRIAGE = {"kind": "predictor", "price": {"usd_per_request": "0.5"}}


def unsure(dear: MemoryUpstream) -> dict[str, Upstream]:
    """A first step that is paid and will not do, a model that fails, and the one that falls in."""
    triage = MemoryPredictor(lambda text: ("other", 0.5))
    return {"echo": MemoryUpstream(fail_with=[503]), "dear": dear, "triage": triage}


def test_a_ledger_that_is_read_again_between_two_models_forgets_nothing_of_the_first(
    start_gateway: StartGateway,
) -> None:
    reserved: list[int] = []

    def speak(request: dict[str, Any]) -> str:
        """As when somebody changes a key just now."""
        assert isinstance(budgets, Budgets)
        budgets.reread()
        reserved.append(budgets.account(budget, time.time()).reserved)
        return "from dear"

    gateway = start_gateway(
        unsure(MemoryUpstream(speak)), echo={**CHEAP, "cascade": STEPS}, dear=DEAR, triage=TRIAGE
    )
    token = gateway.mint(budget_pico_usd=10**13)
    key = gateway.platform.keys.find(token)
    assert key is not None
    (budget,) = key.budgets
    budgets = gateway.platform.budgets
    assert isinstance(budgets, Budgets)
    with gateway.client(token=token) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    account = budgets.account(budget, time.time())
    assert account.spent == sum(row["amount_pico_usd"] for row in gateway.ledger()) == 15 * 10**11
    assert (reserved, account.reserved) == ([15 * 10**11], 0)


def test_what_a_step_cost_is_paid_also_when_the_budget_does_not_reach_for_the_fallback(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(
        unsure(MemoryUpstream()), echo={**CHEAP, "cascade": STEPS}, dear=DEAR, triage=TRIAGE
    )
    token = gateway.mint(budget_pico_usd=14 * 10**11)
    key = gateway.platform.keys.find(token)
    assert key is not None
    assert isinstance(gateway.platform.budgets, Budgets)
    account = gateway.platform.budgets.account(key.budgets[0], time.time())
    account.reserved = 10**11  # another request's, still open
    with gateway.client(token=token) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert account.spent == sum(row["amount_pico_usd"] for row in gateway.ledger()) == 5 * 10**11
    assert account.reserved == 10**11
