"""Every model that a cascade asked is on the ledger, with all that it used, whatever came of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support.gateway import StartGateway
from support.installed import until
from support.told import TellingUpstream, answer

from trilith.errors import APIConnectionError
from trilith.seams import Call
from trilith.settings.schema import Settings
from trilith.testing import MemoryPredictor, MemoryUpstream
from trilith.testing.upstream import MemoryReply
from trilith_gateway.budget import Budgets
from trilith_gateway.release import declared_digest

IN, OUT = 10**6, 3 * 10**6
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ROW: dict[str, Any] = {"kind": "predictor", "price": {"usd_per_krow": "1"}}
ROW_PICO = 10**9


def sure(text: str) -> tuple[str, float]:
    return ("yes", 0.97)


def unsure(text: str) -> tuple[str, float]:
    return ("yes", 0.2)


class Breaking(TellingUpstream):
    """Reports what it used, and breaks off."""

    def __init__(self) -> None:
        head = b'{"id":"a","usage":' + json.dumps(USED).encode() + b',"choices":['
        super().__init__([head, APIConnectionError("cut")])

    async def send(self, call: Call) -> MemoryReply:
        reply = await super().send(call)
        reply.headers = {"content-type": "application/json"}
        return reply


class Timed(MemoryPredictor):
    """Tells the CPU time that it took: 36 microseconds."""

    async def send(self, call: Call) -> MemoryReply:
        reply = await super().send(call)
        reply.headers = {**reply.headers, "x-trilith-cpu-ns": "36000"}
        return reply


@pytest.mark.parametrize(("says", "status"), [(sure, 200), (unsure, 502)])
def test_what_broke_off_before_another_was_asked_is_a_row_of_its_own(
    start_gateway: StartGateway, says: Callable[[str], tuple[str, float]], status: int
) -> None:
    gateway = start_gateway(
        {"echo": Breaking(), "triage": MemoryPredictor(says)},
        echo={"otherwise": {"model": "triage"}},
        triage=ROW,
    )
    assert gateway.chat().status_code == status
    (broken,) = [row for row in gateway.ledger() if row["rule"] == "broken"]
    assert (broken["model"], broken["team"]) == ("echo", "platform")
    assert broken["amount_pico_usd"] == 10 * IN + 5 * OUT
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == 10 * IN + 5 * OUT + ROW_PICO
    assert gateway.rows("select * from reservations") == []


def test_an_error_that_was_billed_is_charged_once_when_nobody_else_can_answer(
    start_gateway: StartGateway,
) -> None:
    billed = TellingUpstream((503, {"error": {"message": "x"}, "usage": USED}))
    gateway = start_gateway(
        {"echo": billed, "triage": MemoryPredictor(unsure)},
        echo={"otherwise": {"model": "triage"}},
        triage=ROW,
    )
    assert gateway.chat().status_code == 503
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == 10 * IN + 5 * OUT + ROW_PICO


@pytest.mark.parametrize("says", [sure, unsure])
def test_a_predictors_cpu_time_is_charged_on_the_way_too(
    start_gateway: StartGateway, says: Callable[[str], tuple[str, float]]
) -> None:
    gateway = start_gateway(
        {"echo": TellingUpstream(answer(USED)), "triage": Timed(says)},
        echo={"cascade": [{"model": "triage"}]},
        triage={"kind": "predictor", "price": {"usd_per_krow": "1", "usd_per_cpu_hour": "0.1"}},
    )
    gateway.chat()
    (row,) = [row for row in gateway.ledger() if row["model"] == "triage"]
    assert (row["rows"], row["cpu_ns"]) == (1, 36_000)
    assert row["amount_pico_usd"] == ROW_PICO + 10**11 * 36_000 // 3_600_000_000_000


@pytest.mark.parametrize("leaves", [False, True])
def test_an_answer_whose_check_nobody_waited_for_is_paid(start_gateway: StartGateway, leaves: bool) -> None:
    class Slow(MemoryPredictor):
        async def send(self, call: Call) -> MemoryReply:
            await asyncio.sleep(60)
            raise AssertionError

    step = {"model": "small", "check": {"model": "judge", "labels": ["ok"]}}
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "small": TellingUpstream(answer(USED)), "judge": Slow(sure)},
        echo={"cascade": [step]},
        judge=ROW,
    )
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    headers = {} if leaves else {"x-request-timeout-ms": "400"}
    with gateway.client(headers=headers) as client:
        if leaves:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body, timeout=0.4)
        else:
            assert client.post("/v1/chat/completions", json=body).status_code == 504
    until(lambda: len(gateway.ledger()) == 2)
    assert sum(row["amount_pico_usd"] for row in gateway.ledger()) == 10 * IN + 5 * OUT
    assert {row["team"] for row in gateway.ledger()} == {"test"}


def test_an_answer_that_cannot_be_read_is_charged_where_it_reports_what_it_used(
    start_gateway: StartGateway,
) -> None:
    class Garbled(MemoryUpstream):
        async def send(self, call: Call) -> MemoryReply:
            return MemoryReply(200, _one(b'{"usage":' + json.dumps(USED).encode() + b',"choices":[\xff]}'))

    gateway = start_gateway(
        {"echo": MemoryUpstream("from large"), "small": Garbled()}, echo={"cascade": [{"model": "small"}]}
    )
    assert gateway.chat().json()["choices"][0]["message"]["content"] == "from large"
    (row,) = [row for row in gateway.ledger() if row["model"] == "small"]
    assert row["amount_pico_usd"] == 10 * IN + 5 * OUT


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def test_tokens_are_counted_by_the_model_itself(start_gateway: StartGateway) -> None:
    predictor, echo = MemoryPredictor(sure), TellingUpstream({"count": 7, "tokens": []})
    gateway = start_gateway(
        {"echo": echo, "triage": predictor}, echo={"cascade": [{"model": "triage"}]}, triage=ROW
    )
    body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
    with gateway.client() as client:
        assert client.post("/v1/messages/count_tokens", json=body).json() == {"input_tokens": 7}
    assert not predictor.calls


def test_a_step_waits_for_a_place_at_its_model(start_gateway: StartGateway) -> None:
    class Crowded(MemoryUpstream):
        now = most = 0

        async def send(self, call: Call) -> MemoryReply:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await super().send(call)
            finally:
                self.now -= 1

    small = Crowded("fine", delay_s=0.02)
    gateway = start_gateway(
        {"echo": MemoryUpstream("from large"), "small": small},
        echo={"cascade": [{"model": "small"}]},
        small={"max_concurrency": 1, "queue_length": 2},
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.chat().json(), range(8)))
    assert small.most == 1
    said = {found["choices"][0]["message"]["content"] for found in answers}
    assert said == {"fine", "from large"}  # the queue was full for some, who were not kept waiting
    release = gateway.platform.releases.find("small")
    gate = release.gate if release is not None else None
    assert gate is not None
    until(lambda: (gate.open, gate.waiting) == (0, 0))


def test_a_cascades_digest_changes_with_the_models_that_it_asks() -> None:
    def digest(**small: Any) -> str:
        chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
        check = {"model": "judge", "labels": ["ok"]}
        models = {
            "echo": {
                **chat,
                "cascade": [{"model": "small", "check": check}],
                "otherwise": {"model": "judge"},
            },
            "small": {**chat, **small},
            "judge": {"kind": "predictor", "registered_model": small.get("judge", "r")},
        }
        models["small"].pop("judge", None)
        return declared_digest(Settings.model_validate({"models": models}), "echo")

    assert digest() == digest()
    assert len({digest(), digest(max_output_tokens=9), digest(judge="other")}) == 3


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_tells_no_usage_is_estimated_by_its_words(
    start_gateway: StartGateway, streamed: bool
) -> None:
    words = "a longer answer than nothing"
    gateway = start_gateway(
        {"echo": MemoryUpstream(), "small": MemoryUpstream(words, reports_usage=False)},
        echo={"cascade": [{"model": "small"}]},
    )
    gateway.chat(stream=streamed)
    (row,) = gateway.ledger()
    assert (row["rule"], row["estimated"], row["model"]) == ("estimate", 1, "small")
    assert len(words) // 3 <= row["output_tokens"] <= len(words)


@pytest.mark.parametrize("unknown", ["small", "echo"])
def test_what_has_no_price_on_the_way_or_at_its_end_counts_as_it_was_reserved(
    start_gateway: StartGateway, unknown: str
) -> None:
    searched = {**USED, "server_tool_use": {"web_search_requests": 2}, "prompt_tokens_details": {}}
    used = {
        name: TellingUpstream(answer(searched if name == unknown else USED)) for name in ("echo", "small")
    }
    gateway = start_gateway(used, echo={"cascade": [{"model": "small", "matches": "never"}]})
    token = gateway.mint(budget_pico_usd=10**10)
    key = gateway.platform.keys.find(token)
    assert key is not None
    body = {"model": "echo", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]}
    with gateway.client(token=token) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 200
    size = len(json.dumps(body, separators=(",", ":")))
    assert isinstance(gateway.platform.budgets, Budgets)
    account = gateway.platform.budgets.account(key.budgets[0], time.time())
    assert (account.spent, account.reserved) == (2 * (size * IN + 500 * OUT), 0)
    metrics = gateway.platform.metrics.text().decode()
    assert 'trilith_reservation_exceeded_total{kind="chat",model="echo"} 0.0' in metrics
