"""Cascades: who is asked first, when that will do, and that every model asked is paid exactly once."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway
from support.installed import until

from trilith.errors import APIConnectionError
from trilith.money import Price, cost, pico_usd
from trilith.seams import Call, Reply, Upstream
from trilith.testing import MemoryPredictor, MemoryUpstream
from trilith.types import Usage
from trilith_gateway.budget import Budgets
from trilith_gateway.usage import estimate

ROW: dict[str, Any] = {"kind": "predictor", "price": {"usd_per_krow": "1"}}
ROW_PICO = 10**9
LARGE = Price(input_token=10**6, output_token=3 * 10**6)
SMALL = {"price": {"input_usd_per_mtok": "0.1", "output_usd_per_mtok": "0.3"}}


def triage(text: str) -> tuple[str, float]:
    return ("refund", 0.97) if "money" in text else ("other", 0.6)


STEPS = [{"model": "triage"}]


def triaged(
    start: StartGateway,
    large: MemoryUpstream,
    predictor: MemoryPredictor | None = None,
    *,
    price: dict[str, Any] = ROW["price"],
    **echo: Any,
) -> Gateway:
    """A gateway with a large model and a predictor beside it."""
    upstreams: dict[str, Upstream] = {"echo": large, "triage": predictor or MemoryPredictor(triage)}
    return start(upstreams, echo=echo, triage={"kind": "predictor", "price": price})


def by_model(gateway: Gateway) -> dict[str, int]:
    rows = gateway.ledger()
    assert len({row["request_id"] for row in rows}) == 1
    assert gateway.rows("select * from reservations") == []
    idle = {row["id"] for row in rows if row["category"] == "attempt" and row["rule"] == "failed"}
    return {row["model"]: row["amount_pico_usd"] for row in rows if row["id"] not in idle}


def text(answer: httpx.Response) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture
def large() -> MemoryUpstream:
    return MemoryUpstream("from large")


def test_a_sure_predictor_answers_and_the_large_model_is_not_asked(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    step = {"model": "triage", "answers": {"refund": "Refunds take five days."}}
    gateway = triaged(start_gateway, large, cascade=[step])
    answer = gateway.chat("I want my money back")
    assert text(answer) == "Refunds take five days."
    assert not large.calls
    assert answer.headers["x-trilith-cascade"] == "triage"
    assert answer.headers["x-trilith-cost-usd"] == "0.001"
    assert by_model(gateway) == {"triage": ROW_PICO}


def test_an_unsure_one_is_paid_and_the_large_model_answers(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    gateway = triaged(start_gateway, large, cascade=STEPS)
    answer = gateway.chat("hello there")
    assert (text(answer), answer.headers["x-trilith-cascade"]) == ("from large", "echo")
    own = cost(Usage(2, 2), LARGE)
    assert by_model(gateway) == {"triage": ROW_PICO, "echo": own}
    assert float(answer.headers["x-trilith-cost-usd"]) == (ROW_PICO + own) / 10**12


def test_a_label_that_means_no_answer_is_none(start_gateway: StartGateway, large: MemoryUpstream) -> None:
    step = {"model": "triage", "confidence": 0, "abstain": ["other"]}
    gateway = triaged(start_gateway, large, cascade=[step])
    assert text(gateway.chat("hello")) == "from large"


@pytest.mark.parametrize("failure", [503, 400, APIConnectionError("away")])
def test_a_step_that_fails_costs_nothing_and_is_passed_over(
    start_gateway: StartGateway, large: MemoryUpstream, failure: int | Exception
) -> None:
    predictor = MemoryPredictor(triage, fail_with=[failure] * 2)
    gateway = triaged(start_gateway, large, predictor, cascade=STEPS)
    assert text(gateway.chat("money")) == "from large"
    assert set(by_model(gateway)) == {"echo"}


@pytest.mark.parametrize(
    ("step", "said", "kept"),
    [
        ({}, "fine", True),
        ({"finish_reasons": ["length"]}, "fine", False),
        ({"matches": "[a-z]+"}, "fine", True),
        ({"matches": "[a-z]+"}, "fine!", False),
        ({"valid_json": True}, '{"a": 1}', True),
        ({"valid_json": True}, "fine", False),
        ({"mean_logprob": -0.1}, "fine", False),  # the twin gives none: unknown is not good enough
    ],
)
def test_a_small_model_is_kept_when_its_answer_passes(
    start_gateway: StartGateway, large: MemoryUpstream, step: dict[str, Any], said: str, kept: bool
) -> None:
    small = MemoryUpstream(said)
    gateway = start_gateway(
        {"echo": large, "small": small}, echo={"cascade": [{"model": "small", **step}]}, small=SMALL
    )
    answer = gateway.chat("hello there")
    assert text(answer) == (said if kept else "from large")
    assert answer.headers["x-trilith-cascade"] == ("small" if kept else "echo")
    paid = by_model(gateway)
    assert paid["small"] == cost(Usage(2, len(said.split())), LARGE) // 10
    assert ("echo" in paid) is not kept


def test_a_check_reads_the_small_models_answer_and_is_paid(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    judge = MemoryPredictor(lambda said: ("ok" if "good" in said else "bad", 0.9))
    step = {"model": "small", "check": {"model": "judge", "labels": ["ok"]}}
    small = MemoryUpstream(lambda request: "good" if "easy" in str(request) else "nonsense")
    gateway = start_gateway(
        {"echo": large, "small": small, "judge": judge}, echo={"cascade": [step]}, small=SMALL, judge=ROW
    )
    assert text(gateway.chat("easy")) == "good"
    assert set(by_model(gateway)) == {"small", "judge"}
    assert text(gateway.chat("hard")) == "from large"
    assert len(gateway.ledger()) == 5


def test_a_predictor_answers_when_the_model_does_not(start_gateway: StartGateway) -> None:
    large = MemoryUpstream(fail_with=[503])
    gateway = triaged(start_gateway, large, otherwise={"model": "triage"})
    answer = gateway.chat("money")
    assert (answer.status_code, text(answer)) == (200, "refund")
    assert by_model(gateway) == {"triage": ROW_PICO}


def test_an_unsure_one_leaves_the_error_as_it_was(start_gateway: StartGateway) -> None:
    large = MemoryUpstream(fail_with=[503])
    gateway = triaged(start_gateway, large, otherwise={"model": "triage"})
    answer = gateway.chat("hello")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "scripted")
    assert by_model(gateway) == {"triage": ROW_PICO, "echo": 0}


def test_a_stream_is_answered_as_a_stream(start_gateway: StartGateway, large: MemoryUpstream) -> None:
    gateway = triaged(start_gateway, large, cascade=STEPS)
    told = gateway.chat("money", stream=True).text
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": "refund"}
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert told.endswith("data: [DONE]\n\n")
    assert "usage" not in told
    assert "from " in gateway.chat("hello", stream=True).text
    assert [row["model"] for row in gateway.ledger()] == ["triage", "triage", "echo"]


def test_what_a_step_spared_is_on_the_bill(start_gateway: StartGateway, large: MemoryUpstream) -> None:
    small = MemoryUpstream("fine")
    gateway = start_gateway(
        {"echo": large, "small": small}, echo={"cascade": [{"model": "small"}]}, small=SMALL
    )
    answer = gateway.chat("hello there")
    spared = cost(Usage(2, 1), LARGE) * 9 // 10
    assert float(answer.headers["x-trilith-saved-usd"]) == spared / 10**12
    (row,) = gateway.ledger()
    assert (row["asked"], row["saved_pico_usd"]) == ("echo", spared)
    told = gateway.platform.metrics.text().decode()
    assert 'trilith_cascade_total{kind="chat",model="echo",step="small"} 1.0' in told
    assert f'trilith_cascade_saved_usd_total{{kind="chat",model="echo",step="small"}} {spared / 1e12}' in told


def test_a_predictors_saving_is_counted_in_bytes(start_gateway: StartGateway, large: MemoryUpstream) -> None:
    cheap = {"usd_per_krow": "0.001"}
    gateway = triaged(start_gateway, large, cascade=STEPS, price=cheap)
    sent = len(gateway.chat("money").request.content)
    (row,) = gateway.ledger()
    assert row["saved_pico_usd"] == cost(estimate(sent, len("refund")), LARGE) - 10**6


def test_what_a_predictor_cannot_say_is_not_asked_of_it(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    predictor = MemoryPredictor(triage)
    gateway = triaged(start_gateway, large, predictor, cascade=STEPS)
    gateway.chat("money", tools=[{"type": "function", "function": {"name": "pay"}}])
    gateway.chat("money", response_format={"type": "json_object"})
    gateway.chat("money", n=2)
    assert not predictor.calls


def test_one_reservation_bounds_all_that_may_be_asked(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    gateway = start_gateway(
        {"echo": large, "triage": MemoryPredictor(triage)},
        echo={"cascade": [{"model": "triage"}], "price": {"usd_per_request": "1"}},
        triage={"kind": "predictor", "price": {"usd_per_request": "0.5"}},
    )
    body = {"model": "echo", "messages": [{"role": "user", "content": "money"}]}
    with gateway.client(token=gateway.mint(budget_pico_usd=14 * 10**11)) as client:
        refused = client.post("/v1/chat/completions", json=body)
    assert refused.json()["error"]["code"] == "insufficient_quota"
    with gateway.client(token=gateway.mint(budget_pico_usd=20 * 10**11)) as client:
        statuses = [client.post("/v1/chat/completions", json=body).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]  # 0.5 twice; then 1.0 is left of the 1.5 that a third may cost
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == 10**12


def test_a_row_on_the_way_gives_back_its_own_part_of_the_reservation_and_no_more(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    gateway = triaged(start_gateway, large, cascade=STEPS)
    token = gateway.mint(budget_pico_usd=10**13)
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    key = gateway.platform.keys.find(token)
    assert key is not None
    assert isinstance(gateway.platform.budgets, Budgets)
    account = gateway.platform.budgets.account(key.budgets[0], time.time())
    account.reserved = 10**12  # another request's, still open
    with gateway.client(token=token) as client:
        assert client.post("/v1/chat/completions", json=body).headers["x-trilith-cascade"] == "echo"
    assert account.reserved == 10**12
    assert account.spent == sum(row["amount_pico_usd"] for row in gateway.ledger())


def test_a_step_that_the_key_may_not_call_is_passed_over(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    predictor = MemoryPredictor(triage)
    gateway = triaged(start_gateway, large, predictor, cascade=STEPS)
    with gateway.client(token=gateway.mint(models=frozenset({"echo"}))) as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "money"}]}
        assert text(client.post("/v1/chat/completions", json=body)) == "from large"
    assert not predictor.calls


def test_personal_data_is_masked_for_every_step_and_restored(start_gateway: StartGateway) -> None:
    small = MemoryUpstream()
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "small": small},
        echo={"cascade": [{"model": "small"}], "policy": "private"},
        small=SMALL | {"policy": "private"},
    )
    answer = gateway.chat("write to ann@example.org")
    assert text(answer) == "write to ann@example.org"
    assert b"ann@example.org" not in small.calls[0].body


def test_an_anthropic_client_gets_its_protocol(start_gateway: StartGateway, large: MemoryUpstream) -> None:
    gateway = triaged(start_gateway, large, cascade=STEPS)
    body = {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "money"}]}
    with gateway.client() as client:
        answer = client.post("/v1/messages", json=body).json()
        streamed = client.post("/v1/messages", json=body | {"stream": True}).text
    assert answer["content"][0]["text"] == "refund"
    assert "message_stop" in streamed


def test_a_caller_who_leaves_pays_what_was_used_and_stops_the_rest(
    start_gateway: StartGateway, large: MemoryUpstream
) -> None:
    slow = MemoryUpstream(delay_s=60)
    models: dict[str, dict[str, Any]] = {
        "echo": {"cascade": [{"model": "triage"}, {"model": "small"}]},
        "triage": ROW,
        "small": SMALL,
    }
    upstreams: dict[str, Upstream] = {"echo": large, "triage": MemoryPredictor(triage), "small": slow}
    gateway = start_gateway(upstreams, **models)
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    with gateway.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=0.5)
    until(lambda: len(gateway.ledger()) == 2)
    rows = [(row["model"], row["rule"], row["amount_pico_usd"]) for row in gateway.ledger()]
    assert rows == [("triage", "usage", ROW_PICO), ("small", "aborted", 0)]
    assert (slow.aborted, gateway.rows("select * from reservations")) == (1, [])


class Invoiced:
    """Lets calls through and adds up what their sender has to pay."""

    def __init__(self, inner: Upstream, price: Price, per_call: Usage) -> None:
        self._inner = inner
        self._each = cost(per_call, price)
        self.ready, self.aclose = inner.ready, inner.aclose
        self.pico_usd = 0

    async def send(self, call: Call) -> Reply:
        reply = await self._inner.send(call)
        if reply.status == 200:
            self.pico_usd += self._each
        return reply


@pytest.mark.parametrize("seed", [1, 2])
def test_the_ledger_is_the_invoice_whatever_fails(start_gateway: StartGateway, seed: int) -> None:
    rng = random.Random(seed)

    def failures(share: float) -> list[int | Exception]:
        kinds: list[int | Exception] = [503, 500, APIConnectionError("away")]
        return [rng.choice(kinds) for _ in range(int(150 * share))]

    predictor = MemoryPredictor(lambda _: ("refund", rng.random()), fail_with=failures(0.1))
    small = MemoryUpstream(lambda _: rng.choice(["fine", "fine!"]), fail_with=failures(0.2))
    large = MemoryUpstream("from large", fail_with=failures(0.2))
    row, cheap = Price(row=ROW_PICO), Price(input_token=10**5, output_token=3 * 10**5)
    upstreams = {
        "echo": Invoiced(large, LARGE, Usage(1, 2)),
        "triage": Invoiced(predictor, row, Usage(rows=1)),
        "small": Invoiced(small, cheap, Usage(1, 1)),
    }
    steps = [{"model": "triage", "confidence": 0.7}, {"model": "small", "matches": "[a-z]+"}]
    echo = {"cascade": steps, "otherwise": {"model": "triage", "confidence": 0.2}}
    gateway = start_gateway(upstreams, echo=echo, triage=ROW, small=SMALL)
    budget = 40 * ROW_PICO
    with gateway.client(token=gateway.mint(budget_pico_usd=budget)) as client, ThreadPoolExecutor(8) as pool:
        body = {"model": "echo", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
        answers = list(pool.map(lambda _: client.post("/v1/chat/completions", json=body), range(120)))
    statuses = Counter(answer.status_code for answer in answers)
    assert {200, 429} <= set(statuses)
    charged = sum(row["amount_pico_usd"] for row in gateway.ledger())
    assert charged == sum(upstream.pico_usd for upstream in upstreams.values()) <= budget
    assert gateway.rows("select * from reservations") == []
    told = sum(pico_usd(Decimal(answer.headers.get("x-trilith-cost-usd", "0"))) for answer in answers)
    assert told == charged
