"""What gateways are known to get wrong about money: fifteen numbered cases."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bench.money import Ear
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from support.gateway import PRICE, Gateway, StartGateway
from support.told import DONE, TellingUpstream, answer, event, said

from trilith.errors import APIConnectionError, BudgetExceededError
from trilith.money import Price, cost
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith.types import Usage
from trilith_gateway import key as keys
from trilith_gateway import platform as platforms
from trilith_gateway import reported, rerate
from trilith_gateway.api import Api
from trilith_gateway.budget import Budgets
from trilith_gateway.exchange import Exchange
from trilith_gateway.routing import policy
from trilith_gateway.routing.endpoint import Endpoint
from trilith_gateway.routing.routed import Limits, RoutedUpstream
from trilith_gateway.store import sqlite
from trilith_gateway.usage import read_message_usage, read_usage

IN, OUT = 1_000_000, 3_000_000  # pico-USD a token, as PRICE says
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def waited_for(gateway: Gateway, count: int = 1) -> list[dict[str, Any]]:
    """The ledger, once it has so many rows."""
    until = time.monotonic() + 20
    while len(rows := gateway.ledger()) < count and time.monotonic() < until:
        time.sleep(0.02)
    return rows


def direct(
    home: Path, telling: Any, body: dict[str, Any], *, budget_pico_usd: int | None = None, **model: Any
) -> tuple[platforms.Platform, Exchange]:
    """A platform without a server and without a span, and one request to it."""
    described = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "price": PRICE, **model}
    settings = Settings.model_validate({"home": home, "engines": {"e": {}}, "models": {"m": described}})
    made, token = keys.mint("k", team="direct", budget_pico_usd=budget_pico_usd)
    provider = TracerProvider(sampler=ALWAYS_OFF)
    built = platforms.build(settings, given={"m": telling}, fixed_keys=(made,), provider=provider)
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **body}).encode()
    headers = {"authorization": f"Bearer {token}"}
    return built, Exchange(Api.CHAT, "/v1/chat/completions", headers, lambda _: raw)


# 1. A stream without usage


def test_case_01_usage_is_forced_in_streams_and_taken_out_again(start_gateway: StartGateway) -> None:
    echo = MemoryUpstream()
    gateway = start_gateway({"echo": echo})
    told = gateway.chat("a b", stream=True).text
    assert json.loads(echo.calls[0].body)["stream_options"]["include_usage"] is True
    assert '"usage"' not in told
    (row,) = gateway.ledger()
    assert (row["rule"], row["estimated"], row["amount_pico_usd"]) == ("usage", 0, 2 * IN + 2 * OUT)


def test_case_01_a_stream_without_usage_is_estimated_and_never_dearer_than_reserved(
    start_gateway: StartGateway,
) -> None:
    telling = TellingUpstream([said("a word "), said("and another "), said("and one more"), DONE])
    gateway = start_gateway({"echo": telling})
    gateway.chat("hello", stream=True, max_tokens=12)
    (row,) = gateway.ledger()
    assert (row["rule"], row["estimated"]) == ("estimate", 1)
    assert 3 <= row["output_tokens"] <= 12


# 2. A caller who leaves in the middle


def test_case_02_a_caller_who_leaves_pays_for_what_had_come_and_the_upstream_stops(
    start_gateway: StartGateway,
) -> None:
    echo = MemoryUpstream("word " * 200, delay_s=0.02)
    gateway = start_gateway({"echo": echo})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with gateway.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        for _ in range(6):
            next(lines)
    (row,) = waited_for(gateway)
    assert (row["rule"], row["status"], row["estimated"]) == ("aborted", 499, 1)
    assert 0 < row["output_tokens"] < 100
    assert row["amount_pico_usd"] == row["input_tokens"] * IN + row["output_tokens"] * OUT
    assert echo.aborted == 1


async def test_case_02_an_engine_that_reports_as_it_goes_is_charged_to_the_token(tmp_path: Path) -> None:
    def so_far(count: int) -> bytes:
        return said("x", usage={"prompt_tokens": 9, "completion_tokens": count})

    telling = TellingUpstream([so_far(1), so_far(2), so_far(3), so_far(4), DONE])
    built, exchange = direct(tmp_path, telling, {"stream": True}, upstream={"engine": "e"})
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(built.front.run(exchange, Ear(3)))
    await asyncio.to_thread(built.store.flush)
    with built.store.reading() as connection:
        (row,) = connection.execute("select * from ledger").fetchall()
    assert (row["rule"], row["estimated"], row["output_tokens"]) == ("aborted", 0, 3)
    assert row["amount_pico_usd"] == 9 * IN + 3 * OUT
    await built.aclose()


# 3. Cached tokens: within the prompt's, or beside them


COUNTS = st.integers(0, 10_000)


@given(fresh=COUNTS, read=COUNTS, written=COUNTS, hour=COUNTS, output=COUNTS)
def test_case_03_both_ways_of_counting_cached_tokens_become_one(
    fresh: int, read: int, written: int, hour: int, output: int
) -> None:
    within = read_usage(
        {
            "prompt_tokens": fresh + read + written + hour,
            "completion_tokens": output,
            "prompt_tokens_details": {
                "cached_tokens": read,
                "cache_creation_tokens": written + hour,
                "cache_creation_token_details": {"ephemeral_1h_input_tokens": hour},
            },
        }
    )
    beside = read_message_usage(
        {
            "input_tokens": fresh,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": hour},
            "output_tokens": output,
        }
    )
    assert within == beside
    assert within is not None
    assert within.uncached_input_tokens == fresh
    price = Price(10, 50, 1, cache_write_token=12, cache_write_1h_token=20)
    assert cost(within, price) == fresh * 10 + read + written * 12 + hour * 20 + output * 50


def test_case_03_cached_tokens_are_billed_once_and_told_as_the_callers_protocol_counts(
    start_gateway: StartGateway,
) -> None:
    used = {**USED, "prompt_tokens_details": {"cached_tokens": 4, "cache_creation_tokens": 3}}
    price = {**PRICE, "cached_input_usd_per_mtok": "0.1", "cache_write_usd_per_mtok": "1.25"}
    gateway = start_gateway({"echo": TellingUpstream(answer(used))}, echo={"price": price})
    with gateway.client() as client:
        body = {"model": "echo", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        told = client.post("/v1/messages", json=body).json()["usage"]
    assert told == {
        "input_tokens": 3,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 3,
        "output_tokens": 5,
    }
    (row,) = gateway.ledger()
    assert row["amount_pico_usd"] == 3 * IN + 4 * 100_000 + 3 * 1_250_000 + 5 * OUT
    assert (row["input_tokens"], row["cached_input_tokens"], row["cache_write_tokens"]) == (10, 4, 3)


def test_case_03_a_stream_of_messages_tells_the_input_first_and_the_output_last() -> None:
    start = {"input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 1}
    start["cache_creation_input_tokens"] = 2
    first = reported.message_usage({"type": "message_start", "message": {"usage": start}})
    assert reported.message_usage({"type": "content_block_delta", "delta": {}}) is None
    last = reported.message_usage({"type": "message_delta", "usage": {"output_tokens": 9}})
    assert first is not None
    assert last is not None
    both = reported.larger(first, last)
    assert (first.output_tokens, both.output_tokens) == (1, 9)
    assert (both.input_tokens, both.cached_input_tokens, both.uncached_input_tokens) == (14, 7, 5)


# 4. Reasoning tokens within the output's


def test_case_04_reasoning_tokens_are_part_of_the_output_and_may_have_a_rate(
    start_gateway: StartGateway,
) -> None:
    used = {**USED, "completion_tokens_details": {"reasoning_tokens": 4}}
    dear = {"price": {**PRICE, "reasoning_usd_per_mtok": "7"}}
    upstreams = {name: TellingUpstream(answer(used)) for name in ("echo", "dear")}
    gateway = start_gateway(upstreams, dear=dear)
    gateway.chat()
    gateway.chat(model="dear")
    plain, own = gateway.ledger()
    assert plain["amount_pico_usd"] == 10 * IN + 5 * OUT
    assert own["amount_pico_usd"] == 10 * IN + 1 * OUT + 4 * 7_000_000
    assert (plain["output_tokens"], plain["reasoning_tokens"]) == (5, 4)


# 5. Every try that reported usage is a row; what failed without is 0, and known


def routed(*upstreams: TellingUpstream, hedge_share: float = 0.0) -> RoutedUpstream:
    endpoints = [Endpoint(f"r{number}", upstream) for number, upstream in enumerate(upstreams)]
    limits = Limits(attempts=3, retry_share=1.0, hedge_share=hedge_share)
    return RoutedUpstream(endpoints, policy.weighted, limits=limits)


def test_case_05_every_try_is_a_row_and_the_platform_pays_for_its_own(start_gateway: StartGateway) -> None:
    failing = TellingUpstream(APIConnectionError("away"))
    billed = TellingUpstream((500, {"error": {"message": "x"}, "usage": USED}))
    gateway = start_gateway({"echo": routed(failing, billed, TellingUpstream(answer(USED)))})
    assert gateway.chat().status_code == 200
    first, second, last = sorted(gateway.ledger(), key=lambda row: row["attempt"])
    seen = [(row["category"], row["upstream"], row["rule"], row["status"]) for row in (first, second, last)]
    assert seen == [
        ("attempt", "r0", "failed", 0),
        ("attempt", "r1", "usage", 500),
        ("usage", "r2", "usage", 200),
    ]
    assert [row["amount_pico_usd"] for row in (first, second, last)] == [0, *[10 * IN + 5 * OUT] * 2]
    assert [row["team"] for row in (first, second, last)] == ["platform", "platform", "test"]
    assert len({row["request_id"] for row in (first, second, last)}) == 1
    assert first["id"] == f"{last['id']}.1"


def test_case_05_an_error_that_was_billed_and_reached_the_caller_is_paid_by_the_platform(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": TellingUpstream((500, {"error": {"message": "x"}, "usage": USED}))})
    assert gateway.chat().status_code == 500
    rows = {row["category"]: row for row in gateway.ledger()}
    assert rows["attempt"]["amount_pico_usd"] == 10 * IN + 5 * OUT
    assert rows["attempt"]["team"] == "platform"
    assert (rows["usage"]["amount_pico_usd"], rows["usage"]["rule"]) == (0, "failed")


def test_case_05_a_usage_of_zero_is_a_usage(start_gateway: StartGateway) -> None:
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    gateway = start_gateway({"echo": TellingUpstream(answer(zero))})
    gateway.chat("not a word is counted")
    (row,) = gateway.ledger()
    assert (row["rule"], row["amount_pico_usd"], row["estimated"]) == ("usage", 0, 0)


# 6. A fallback costs what the model that answers costs, and the budget is asked again


DEAR = {"price": {"input_usd_per_mtok": "100", "output_usd_per_mtok": "300"}}


def test_case_06_a_fallback_is_charged_at_its_own_price_within_the_budget(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(
        {"echo": TellingUpstream((503, {"error": {}})), "dear": TellingUpstream(answer(USED))},
        echo={"fallbacks": ["dear"]},
        dear=DEAR,
    )
    assert gateway.chat(max_tokens=5).status_code == 200
    last = gateway.ledger()[-1]
    assert (last["model"], last["amount_pico_usd"]) == ("dear", 100 * (10 * IN + 5 * OUT))
    with gateway.client(token=gateway.mint(budget_pico_usd=200 * IN)) as client:
        body = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
        told = client.post("/v1/chat/completions", json=body)
    assert told.json()["error"]["code"] == "insufficient_quota"
    assert gateway.rows("select * from reservations") == []


def test_case_06_what_broke_off_before_the_fallback_answered_is_a_row_of_its_own(
    start_gateway: StartGateway,
) -> None:
    class Breaking(TellingUpstream):
        async def send(self, call: Any) -> Any:
            reply = await super().send(call)
            reply.headers = {"content-type": "application/json"}
            return reply

    head = b'{"id":"a","usage":' + json.dumps(USED).encode() + b',"choices":['
    breaking = Breaking([head, APIConnectionError("cut")])
    gateway = start_gateway(
        {"echo": breaking, "dear": TellingUpstream(answer(USED))}, echo={"fallbacks": ["dear"]}, dear=DEAR
    )
    assert gateway.chat().status_code == 200
    rows = {row["category"]: row for row in gateway.ledger()}
    assert (rows["attempt"]["model"], rows["attempt"]["rule"]) == ("echo", "broken")
    assert rows["attempt"]["amount_pico_usd"] == 10 * IN + 5 * OUT
    assert (rows["usage"]["model"], rows["usage"]["rule"]) == ("dear", "usage")


# 7. A stream that breaks after its head went out


def test_case_07_a_stream_that_breaks_is_charged_to_its_own_model_and_nobody_else_is_asked(
    start_gateway: StartGateway,
) -> None:
    dear = TellingUpstream(answer(USED))
    gateway = start_gateway(
        {"echo": TellingUpstream([said("one "), said("two "), APIConnectionError("cut")]), "dear": dear},
        echo={"fallbacks": ["dear"]},
        dear=DEAR,
    )
    told = gateway.chat(stream=True).text
    assert "[DONE]" not in told
    assert '"error"' in told
    assert dear.calls == []
    (row,) = gateway.ledger()
    assert (row["model"], row["rule"], row["estimated"]) == ("echo", "broken", 1)
    assert row["amount_pico_usd"] == row["input_tokens"] * IN + row["output_tokens"] * OUT > 0


# 8. The service tier that answered


@pytest.mark.parametrize("streamed", [False, True])
def test_case_08_the_tier_that_the_answer_names_decides_the_price(
    start_gateway: StartGateway, streamed: bool
) -> None:
    def told(tier: str) -> Any:
        if not streamed:
            return answer(USED, service_tier=tier)
        last = {"id": "a", "choices": [], "usage": USED, "service_tier": tier}
        return [said("x", service_tier=tier), event(last), DONE]

    price = {**PRICE, "flex_factor": "0.5", "priority_factor": "2"}
    upstream = TellingUpstream(told("default"), told("flex"), told("priority"), told("scale"))
    gateway = start_gateway({"echo": upstream}, echo={"price": price})
    for _ in range(4):
        gateway.chat(stream=streamed)
    base = 10 * IN + 5 * OUT
    assert [row["amount_pico_usd"] for row in gateway.ledger()] == [base, base // 2, base * 2, None]
    assert [row["tier"] for row in gateway.ledger()] == ["", "flex", "priority", "scale"]


def test_case_08_a_tier_and_a_size_of_the_book_apply_together() -> None:
    from trilith.prices import load
    from trilith.types import Particulars

    price = load().price("openai/gpt-5.4")
    flex = Particulars(tier="flex")
    assert cost(Usage(272_000), price) == 272_000 * 2_500_000
    assert cost(Usage(272_001), price) == 272_001 * 5_000_000
    assert cost(Usage(272_000, particulars=flex), price) == 272_000 * 1_250_000
    assert cost(Usage(272_001, particulars=flex), price) == 272_001 * 2_500_000


# 9. The price's version is on the row, and another price is an adjustment beside it


def test_case_09_a_rerating_appends_adjustments_and_doing_it_again_changes_nothing(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": TellingUpstream(answer(USED))})
    for _ in range(3):
        gateway.chat()
    before = gateway.ledger()
    assert all(row["price"] for row in before)
    database = sqlite.SqliteDatabase(sqlite.database(gateway.home))
    new = Price(2 * IN, 3 * OUT)
    with closing(database.connect()) as connection:
        dry, _ = rerate.find(connection, lambda _: new, 0.0, time.time())
        assert gateway.ledger() == before
        done = rerate.apply(database, connection, lambda _: new, 0.0, time.time(), None)
        again = rerate.apply(database, connection, lambda _: new, 0.0, time.time(), None)
        back = rerate.apply(database, connection, lambda _: Price(IN, OUT), 0.0, time.time(), None)
    assert dry == done
    assert (done.adjustments, done.amount) == (3, 3 * (10 * IN + 5 * 2 * OUT))
    assert (again.adjustments, back.amount) == (0, -done.amount)
    rows = gateway.ledger()
    assert [row for row in rows if row["category"] == "usage"] == before
    adjustments = [row for row in rows if row["category"] == "adjustment"]
    assert {row["adjusts"] for row in adjustments} == {row["id"] for row in before}
    first = {row["price"] for row in before}
    assert sorted(row["price"] in first for row in adjustments) == [False] * 3 + [True] * 3
    assert sum(row["requests"] for row in adjustments) == 0


# 10. A hit in the cache costs nothing, and what it saved is on its row


def test_case_10_an_answer_from_the_cache_costs_nothing_and_its_saving_is_recorded(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway(
        {"echo": TellingUpstream(answer(USED))}, echo={"cache": {"ttl_s": 60, "only_deterministic": False}}
    )
    gateway.chat()
    gateway.chat()
    made, kept = gateway.ledger()
    assert (made["amount_pico_usd"], made["saved_pico_usd"]) == (10 * IN + 5 * OUT, 0)
    assert (kept["rule"], kept["amount_pico_usd"], kept["saved_pico_usd"]) == ("cached", 0, 10 * IN + 5 * OUT)


# 11. A caller who tries again under the same idempotency key


@pytest.mark.parametrize("streamed", [False, True])
def test_case_11_a_repeated_request_under_one_idempotency_key_is_charged_once(
    start_gateway: StartGateway, streamed: bool
) -> None:
    echo = MemoryUpstream()
    gateway = start_gateway({"echo": echo})
    body = {"model": "echo", "messages": [{"role": "user", "content": "x y"}], "stream": streamed}
    with gateway.client(headers={"idempotency-key": "once"}) as client:
        answers = [client.post("/v1/chat/completions", json=body).content for _ in range(3)]
    assert answers[1:] == answers[:-1]
    assert len(echo.calls) == 1
    assert [row["amount_pico_usd"] for row in gateway.ledger()] == [2 * IN + 2 * OUT, 0, 0]


# 12. The edge of a window


@pytest.mark.parametrize(("kind", "edge"), [("day", (2026, 11, 26)), ("month", (2027, 1, 1))])
def test_case_12_a_charge_counts_in_the_window_in_which_it_was_reserved_by_the_utc_calendar(
    kind: Any, edge: tuple[int, int, int]
) -> None:
    at = datetime(*edge, tzinfo=UTC).timestamp()
    made, _ = keys.mint("k", budget_pico_usd=100, budget_window=kind)
    (budget,) = made.budgets
    budgets = Budgets(lambda account, since: 0)
    budgets.reserve(made, 60, at - 1)
    budgets.settle(made, 60, 60, at - 1)
    with pytest.raises(BudgetExceededError):
        budgets.reserve(made, 41, at - 0.001)
    budgets.reserve(made, 40, at - 0.001)  # under way when the window ends
    budgets.reserve(made, 100, at)  # a new window, of which nothing is spent
    with pytest.raises(BudgetExceededError):
        budgets.reserve(made, 1, at)
    budgets.settle(made, 40, 40, at - 0.001)
    budgets.settle(made, 100, 100, at)
    assert budgets.account(budget, at + 2).spent == 100


# 13. No float ever


def test_case_13_amounts_are_whole_numbers_everywhere_in_the_ledger(start_gateway: StartGateway) -> None:
    odd = {"price": {"input_usd_per_mtok": "0.000001", "output_usd_per_mtok": "0.1"}}
    gateway = start_gateway({"echo": TellingUpstream(answer(USED))}, echo=odd)
    for _ in range(10):
        gateway.chat()
    (found,) = gateway.rows(
        "select count(*) as number, min(typeof(amount_pico_usd)) as least,"
        " max(typeof(amount_pico_usd)) as most, sum(amount_pico_usd) as total from ledger"
    )
    assert found == {"number": 10, "least": "integer", "most": "integer", "total": 10 * (10 + 5 * 100_000)}


@given(st.lists(st.tuples(COUNTS, COUNTS), max_size=50), st.integers(0, 10**9), st.integers(0, 10**9))
def test_case_13_the_order_in_which_charges_are_added_changes_nothing(
    used: list[tuple[int, int]], rate: int, other: int
) -> None:
    price = Price(rate, other)
    charges = [cost(Usage(asked, told), price) for asked, told in used]
    whole = sum((Usage(asked, told) for asked, told in used), start=Usage(requests=0))
    assert sum(charges) == sum(reversed(charges)) == cost(whole, price)


# 14. The ledger does not depend on traces


async def test_case_14_without_a_single_span_every_call_is_charged(tmp_path: Path) -> None:
    built, first = direct(tmp_path, TellingUpstream(answer(USED)), {})
    for _ in range(20):
        exchange = Exchange(Api.CHAT, first.path, first.headers, first.read_body)
        await built.front.run(exchange, Ear(None))
    await asyncio.to_thread(built.store.flush)
    assert built.store.charged("team:direct", 0.0) == 20 * (10 * IN + 5 * OUT)
    await built.aclose()


# 15. No price is a state with an alarm, not zero


def test_case_15_a_part_of_a_usage_that_has_no_price_makes_the_call_unpriced_with_an_alarm(
    start_gateway: StartGateway,
) -> None:
    used = {**USED, "server_tool_use": {"web_search_requests": 2}, "prompt_tokens_details": {}}
    gateway = start_gateway({"echo": TellingUpstream(answer(used))})
    token = gateway.mint(budget_pico_usd=10**10)
    with gateway.client(token=token) as client:
        body = {"model": "echo", "max_tokens": 3000, "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/v1/chat/completions", json=body).status_code == 200
        # What cannot be priced counts against the budget as it was reserved: it is not free.
        assert client.post("/v1/chat/completions", json=body).json()["error"]["code"] == "insufficient_quota"
    (row,) = gateway.ledger()
    assert (row["rule"], row["amount_pico_usd"], row["searches"]) == ("unpriced", None, 2)
    (entry,) = gateway.rows("select detail from audit where event = 'price.unknown'")
    assert json.loads(entry["detail"])["parts"] == ["searches"]
    with gateway.client() as client:
        metrics = client.get("/metrics").text
    assert 'trilith_charges_total{kind="chat",model="echo",rule="unpriced"} 1.0' in metrics
