"""Budgets and limits of keys, teams and orgs, over HTTP."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.testing import MemoryUpstream
from trilith_gateway import group, key
from trilith_gateway.answer import duration
from trilith_gateway.commands import explain
from trilith_gateway.store import schema, sqlite
from trilith_gateway.terms import Terms

CENT = 10**10
FIXED = {"price": {"usd_per_request": "0.01"}}
DEAR = {"price": {"usd_per_request": "0.05"}}


def declare(gateway: Gateway, table: str, name: str, **values: Any) -> None:
    with closing(sqlite.connect(sqlite.database(gateway.home))) as connection:
        group.save(connection, table, name, values)
    gateway.platform.keys.reload()


def call(gateway: Gateway, token: str, **fields: Any) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **fields}
    with gateway.client(token=token) as client:
        return client.post("/v1/chat/completions", json=body)


def spent(gateway: Gateway, column: str) -> dict[str, int]:
    rows = gateway.rows(f"select {column} as name, sum(amount_pico_usd) as spent from ledger group by 1")
    return {row["name"]: row["spent"] for row in rows if row["spent"]}


def test_a_charge_names_key_team_and_org(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo=FIXED)
    declare(gateway, "teams", "lab", org="uni")
    id = call(gateway, gateway.mint(team="lab")).headers["x-request-id"]
    (row,) = gateway.ledger()
    assert (row["team"], row["org"], row["asked"], row["budget"]) == ("lab", "uni", "", "")
    found = explain.explain(gateway.platform.settings, id)
    assert "of team lab of uni" in explain._text(found)
    assert gateway.platform.store.charged("org:uni", 0.0) == CENT


def test_64_callers_overshoot_no_level_of_a_hard_budget(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(delay_s=0.005)}, echo=FIXED)
    declare(gateway, "orgs", "uni", budget_pico_usd=60 * CENT, budget_window="total")
    declare(gateway, "teams", "a", org="uni", budget_pico_usd=35 * CENT, budget_window="week")
    declare(gateway, "teams", "b", org="uni")
    tokens = [
        gateway.mint(team="a", budget_pico_usd=20 * CENT),
        gateway.mint(team="a"),
        gateway.mint(team="b"),
        gateway.mint(team="b", budget_pico_usd=10 * CENT),
    ]
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda number: call(gateway, tokens[number % 4]), range(240)))
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 180}
    teams = spent(gateway, "team")
    assert spent(gateway, "org") == {"uni": 60 * CENT}
    assert teams["a"] <= 35 * CENT
    assert gateway.rows("select * from reservations") == []


def test_a_refusal_says_which_budget_and_when_it_is_there_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo=FIXED)
    declare(gateway, "teams", "lab", budget_pico_usd=CENT - 1, budget_window="day")
    refused = call(gateway, gateway.mint(team="lab"))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (429, "insufficient_quota")
    assert "the team's budget of 0.009999999999 USD per day" in error["message"]
    assert time.strftime("%Y-%m-%dT", time.gmtime(time.time() + 86400)) in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-trilith-budget"] == "exhausted; level=team"
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    with gateway.client() as client:
        assert 'trilith_budget_total{event="exhausted",level="team"} 1.0' in client.get("/metrics").text


def test_a_soft_share_is_audited_once_and_said_in_a_header(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo=FIXED)
    declare(gateway, "teams", "lab", budget_pico_usd=10 * CENT, soft_percent=30)
    token = gateway.mint(team="lab")
    said = [call(gateway, token).headers.get("x-trilith-budget") for _ in range(5)]
    assert said == [None] * 3 + ["soft; level=team"] * 2
    (entry,) = gateway.rows("select * from audit where event = 'budget.soft'")
    assert '"account":"team:lab"' in entry["detail"]
    with gateway.client() as client:
        assert 'trilith_budget_total{event="soft",level="team"} 2.0' in client.get("/metrics").text
    assert [row["budget"] for row in gateway.ledger()] == ["", "", "", "soft team:lab", "soft team:lab"]


def test_beyond_a_share_a_cheaper_model_answers_at_its_own_price(start_gateway: StartGateway) -> None:
    upstreams = {"echo": MemoryUpstream("dear"), "small": MemoryUpstream("cheap")}
    gateway = start_gateway(upstreams, echo=DEAR, small=FIXED)
    terms = {"budget_pico_usd": 20 * CENT, "degrade_percent": 50, "degrade_to": "small"}
    declare(gateway, "teams", "lab", **terms)
    token = gateway.mint(team="lab")
    answers = [call(gateway, token) for _ in range(14)]
    said = [answer.json()["choices"][0]["message"]["content"] for answer in answers[:12]]
    assert said == ["dear"] * 2 + ["cheap"] * 10
    assert [answer.status_code for answer in answers[12:]] == [429, 429]
    assert answers[2].headers["x-trilith-budget"] == "degrade; level=team"
    assert answers[2].headers["x-trilith-fallback"] == "small"
    assert spent(gateway, "model") == {"echo": 10 * CENT, "small": 10 * CENT}
    found = explain.explain(gateway.platform.settings, answers[2].headers["x-request-id"])
    assert "echo was asked for, and team:lab has no more for dear models" in explain._text(found)


def test_64_callers_never_spend_more_than_the_share_on_the_dear_model(start_gateway: StartGateway) -> None:
    upstreams = {"echo": MemoryUpstream(delay_s=0.005), "small": MemoryUpstream(delay_s=0.005)}
    gateway = start_gateway(upstreams, echo=DEAR, small=FIXED)
    terms = Terms(100 * CENT, degrade_percent=40, degrade_to="small")
    token = gateway.mint(terms=terms)
    with ThreadPoolExecutor(64) as pool:
        list(pool.map(lambda _: call(gateway, token), range(128)))
    assert spent(gateway, "model") == {"echo": 40 * CENT, "small": 60 * CENT}


@pytest.mark.parametrize(
    ("model", "small"),
    [
        ({"policy": "private"}, {}),
        ({}, {"price": {"usd_per_request": "0.06"}}),
        ({}, {"price": None}),
    ],
)
def test_a_model_that_is_dearer_or_less_protected_does_not_take_over(
    start_gateway: StartGateway, model: dict[str, Any], small: dict[str, Any]
) -> None:
    upstreams = {"echo": MemoryUpstream("dear"), "small": MemoryUpstream("cheap")}
    gateway = start_gateway(upstreams, echo=DEAR | model, small=FIXED | small)
    token = gateway.mint(terms=Terms(20 * CENT, degrade_percent=0, degrade_to="small"))
    answer = call(gateway, token)
    assert answer.json()["choices"][0]["message"]["content"] == "dear"
    assert "x-trilith-budget" not in answer.headers


def test_a_fallback_is_held_to_the_share_too(start_gateway: StartGateway) -> None:
    upstreams = {
        "echo": MemoryUpstream(fail_with=[503]),
        "dear": MemoryUpstream("dear"),
        "small": MemoryUpstream("cheap"),
    }
    cheap = {"price": {"usd_per_request": "0.02"}, "fallbacks": ["dear"]}
    gateway = start_gateway(upstreams, echo=cheap, dear=DEAR, small=FIXED)
    token = gateway.mint(terms=Terms(10 * CENT, degrade_percent=40, degrade_to="small"))
    answer = call(gateway, token)
    assert answer.json()["choices"][0]["message"]["content"] == "cheap"
    assert spent(gateway, "model") == {"small": CENT}


def test_limits_are_told_in_headers_and_tokens_are_corrected_by_what_was_used(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"echo": MemoryUpstream("one two three")})
    declare(gateway, "teams", "lab", tokens_per_minute=6000)
    token = gateway.mint(team="lab", terms=Terms(requests_per_minute=60))
    first, second = (call(gateway, token, max_tokens=1000) for _ in range(2))
    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert second.headers["x-ratelimit-remaining-requests"] == "58"
    assert second.headers["x-ratelimit-reset-requests"].endswith("s")
    assert first.headers["x-ratelimit-limit-tokens"] == "6000"
    taken = 6000 - int(first.headers["x-ratelimit-remaining-tokens"])
    assert 1000 < taken < 1200
    left = int(second.headers["x-ratelimit-remaining-tokens"])
    assert 6000 - taken - 10 < left <= 6000 - taken  # the first took 4 in the end: one word asked, three said
    refused = call(gateway, token, max_tokens=5990)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers


def test_a_request_that_fails_gives_its_tokens_back(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream(fail_with=[500, 500])})
    token = gateway.mint(terms=Terms(tokens_per_minute=1500))
    assert [call(gateway, token, max_tokens=1000).status_code for _ in range(3)] == [500, 500, 200]
    assert call(gateway, token, max_tokens="many").status_code == 400
    assert call(gateway, token, max_tokens=1000).status_code == 200


def test_as_many_requests_as_agreed_are_under_way_and_no_place_is_lost(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream("a b c", delay_s=0.05)})
    declare(gateway, "teams", "lab", max_concurrency=3)
    tokens = [gateway.mint(team="lab") for _ in range(2)]

    def one(number: int) -> int:
        return call(gateway, tokens[number % 2], stream=number % 3 == 0).status_code

    with ThreadPoolExecutor(16) as pool:
        seen = Counter(pool.map(one, range(48)))
        assert set(seen) == {200, 429}
    time.sleep(0.1)  # the last answers' ends are under way
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(one, range(3))) == {200}


def test_a_running_gateway_takes_a_changed_team_up(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"echo": MemoryUpstream()}, echo=FIXED)
    token = gateway.mint(team="lab")
    assert call(gateway, token).status_code == 200
    with closing(sqlite.connect(sqlite.database(gateway.home))) as connection:
        group.save(connection, "teams", "lab", {"budget_pico_usd": CENT})
    until = time.monotonic() + 20
    while call(gateway, token).status_code == 200:
        assert time.monotonic() < until


def test_keys_read_back_as_they_were_made() -> None:
    terms = Terms(5, "week", 50, 80, "small", 7, 8, 9)
    made, _ = key.mint("k", team="t", terms=terms, priority="batch")
    with closing(sqlite.connect(Path(":memory:"))) as connection:
        connection.executescript(schema.newest(postgres=False))
        key.save(connection, made)
        assert key.load(connection) == [made]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.999, "59.999s"),
        (60, "1m0s"),
        (90.25, "1m30.25s"),
        (360, "6m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
