"""Two teams on one gateway: on every route, B sees and changes nothing that is A's.

The test is metamorphic: whatever A has done before, B's answers are those that B gets on a fresh gateway.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import Gateway
from support.world import MODELS, Speaker, world

CHAT = {"messages": [{"role": "user", "content": "what is the plan"}]}
TENSOR = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}]}
HIDDEN = "chat"
"""A's own model; B's key does not name it."""
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "the list of models": ("GET", "/v1/models", None),
    "a hidden model": ("GET", f"/v1/models/{HIDDEN}", None),
    "a chat with a hidden model": ("POST", "/v1/chat/completions", {"model": HIDDEN, **CHAT}),
    "a message to a hidden model": ("POST", "/v1/messages", {"model": HIDDEN, "max_tokens": 5, **CHAT}),
    "a completion by a hidden model": ("POST", "/v1/completions", {"model": HIDDEN, "prompt": "x"}),
    "a response of a hidden model": ("POST", "/v1/responses", {"model": HIDDEN, "input": "x"}),
    "an answer that A has in the cache": ("POST", "/v1/chat/completions", {"model": "kept", **CHAT}),
    "a stream that A has in the cache": (
        "POST",
        "/v1/chat/completions",
        {"model": "kept", "stream": True, **CHAT},
    ),
    "vectors": ("POST", "/v1/embeddings", {"model": "vectors", "input": "the plan"}),
    "a document's answer": ("POST", "/v1/chat/completions", {"model": "library", **CHAT}),
    "the server": ("GET", "/v2", None),
    "the repository": ("POST", "/v2/repository/index", {}),
    "a hidden predictor": ("GET", "/v2/models/bikes", None),
    "whether a hidden predictor is ready": ("GET", "/v2/models/bikes/ready", None),
    "a version of a hidden predictor": ("GET", "/v2/models/bikes/versions/1", None),
    "whether a version is ready": ("GET", "/v2/models/bikes/versions/1/ready", None),
    "a hidden prediction": ("POST", "/v2/models/bikes/infer", TENSOR),
    "a hidden version's prediction": ("POST", "/v2/models/bikes/versions/1/infer", TENSOR),
    "loading a hidden predictor": ("POST", "/v2/repository/models/bikes/load", {}),
    "unloading a hidden predictor": ("POST", "/v2/repository/models/bikes/unload", {}),
    "an invocation": ("POST", "/invocations", {"instances": [[1]]}),
    "a named invocation": ("POST", "/models/bikes/invocations", {"instances": [[1]]}),
}
ALLOWED = frozenset(MODELS) - {HIDDEN, "bikes"}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with world(tmp_path / "shared", Speaker()) as running:
        yield running


def ask(gateway: Gateway, token: str, what: str, **headers: str) -> httpx.Response:
    method, path, body = REQUESTS[what]
    with gateway.client(token=token, headers=headers) as client:
        return client.request(method, path, json=body)


def seen(response: httpx.Response) -> tuple[Any, ...]:
    """Return what a caller can learn from an answer, but for what differs from call to call."""
    text = re.sub(r'"created": ?\d+', "", response.text)
    told = {"x-trilith-cache", "x-trilith-saved-usd", "x-trilith-cost-usd", "x-trilith-release"}
    return response.status_code, text, {name: response.headers.get(name) for name in told}


def test_b_gets_what_b_would_get_if_a_had_never_been(gateway: Gateway, tmp_path: Path) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b", models=ALLOWED)
    name = {"idempotency-key": "the-same-for-both"}
    for what in REQUESTS:
        ask(gateway, a, what)
        ask(gateway, a, what, **name)
    after = {what: [seen(ask(gateway, b, what)), seen(ask(gateway, b, what, **name))] for what in REQUESTS}
    with world(tmp_path / "alone", Speaker()) as fresh:
        alone = fresh.mint(team="b", models=ALLOWED)
        never = {
            what: [seen(ask(fresh, alone, what)), seen(ask(fresh, alone, what, **name))] for what in REQUESTS
        }
    assert after == never
    hidden = {what for what in REQUESTS if "hidden" in what or "version" in what or "invocation" in what}
    assert {after[what][0][0] for what in hidden} == {404}


def test_the_table_of_requests_leaves_no_route_out(gateway: Gateway) -> None:
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    known = {(method, path) for method, path, _ in REQUESTS.values()}
    for path, operations in paths.items():
        for method, operation in operations.items():
            if "security" in operation and path != "/v1/feedback":
                pattern = re.escape(path).replace(r"\{name\}", r"[\w]+").replace(r"\{version\}", "1")
                assert any(m == method.upper() and re.fullmatch(pattern, p) for m, p in known), path


def test_b_can_say_nothing_about_as_answers(gateway: Gateway) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b")
    id = ask(gateway, a, "a chat with a hidden model").headers["x-request-id"]
    statuses = {}
    for token in (b, a):
        with gateway.client(token=token) as client:
            body = {"request_id": id, "score": 1.0, "comment": "mine"}
            statuses[token] = client.post("/v1/feedback", json=body).status_code
    assert statuses == {b: 404, a: 201}
    assert len(gateway.rows("select * from feedback")) == 1


def test_what_a_spends_and_asks_is_not_bs(gateway: Gateway) -> None:
    a = gateway.mint(team="a", requests_per_minute=2)
    b = gateway.mint(team="b", requests_per_minute=2)
    assert [ask(gateway, a, "vectors").status_code for _ in range(3)] == [200, 200, 429]
    assert ask(gateway, b, "vectors").status_code == 200
    a, b = gateway.mint(team="a", budget_pico_usd=1), gateway.mint(team="b", budget_pico_usd=10**15)
    assert ask(gateway, a, "a chat with a hidden model").status_code == 429
    assert ask(gateway, b, "a chat with a hidden model").status_code == 200
    assert {row["team"] for row in gateway.ledger()} == {"a", "b"}
    assert [row["team"] for row in gateway.ledger()].count("b") == 2


def test_a_callers_own_request_id_does_not_shadow_anothers(gateway: Gateway) -> None:
    a, b = gateway.mint(team="a"), gateway.mint(team="b")
    for token in (a, b):
        ask(gateway, token, "vectors", **{"x-request-id": "shared-name"})
    with gateway.client(token=b) as client:
        assert client.post("/v1/feedback", json={"request_id": "shared-name"}).status_code == 201
    rows = [row for row in gateway.ledger() if row["request_id"] == "shared-name"]
    assert [row["team"] for row in rows] == ["a", "b"]
    assert len({row["id"] for row in rows}) == 2


def test_no_answer_of_bs_holds_a_word_of_as(gateway: Gateway) -> None:
    word = secrets.token_hex(8)
    a, b = gateway.mint(team=f"team-{word}"), gateway.mint(team="b", models=ALLOWED)
    with gateway.client(token=a) as client:
        for model in ("chat", "kept", "guarded", "library"):
            body = {"model": model, "messages": [{"role": "user", "content": word}], "user": word}
            assert word in client.post("/v1/chat/completions", json=body).text
    for what in REQUESTS:
        answered = ask(gateway, b, what)
        assert word not in answered.text + json.dumps(dict(answered.headers))
    with httpx.Client(base_url=gateway.url) as stranger:
        for path in ("/metrics", "/readyz", "/openapi.json"):
            assert word not in stranger.get(path).text
