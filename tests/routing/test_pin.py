"""A request may name the release that must answer, also one that has no traffic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.errors import SettingsError
from trilith.settings.load import load_settings
from trilith.settings.schema import Settings
from trilith.testing import MemoryUpstream
from trilith_gateway import decision
from trilith_gateway.release import declared_digest


@pytest.fixture
def two(start_gateway: StartGateway) -> Gateway:
    """`support`, whose candidate `next` has no traffic; and `other`, which is none of its."""
    upstreams = {
        "support": MemoryUpstream("live"),
        "next": MemoryUpstream("candidate"),
        "other": MemoryUpstream("other"),
        "spare": MemoryUpstream("spare"),
    }
    return start_gateway(
        upstreams,
        support={"candidates": ["next"], "fallbacks": ["spare"], "cache": {"ttl_s": 60}},
        next={"upstream": {"url": "http://127.0.0.1:9/v1", "model": "b"}, "cache": {"ttl_s": 60}},
    )


def digest(gateway: Gateway, model: str) -> str:
    release = gateway.platform.releases.find(model)
    assert release is not None
    return release.digest


def ask(gateway: Gateway, release: str | None, *, token: str | None = None, **fields: Any) -> httpx.Response:
    headers = {} if release is None else {"trilith-release": release}
    body = {"model": "support", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, **fields}
    with gateway.client(headers=headers, token=token or gateway.token) as client:
        return client.post("/v1/chat/completions", json=body)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_without_a_digest_no_candidate_answers(two: Gateway) -> None:
    assert {text(ask(two, None, seed=i)) for i in range(20)} == {"live"}


@pytest.mark.parametrize("prefix", ["", "sha256:"])
def test_the_release_that_is_asked_for_answers_and_is_named(two: Gateway, prefix: str) -> None:
    answer = ask(two, prefix + digest(two, "next"))
    assert text(answer) == "candidate"
    assert answer.headers["x-trilith-release"] == digest(two, "next")
    assert text(ask(two, digest(two, "support"))) == "live"


def test_ledger_and_decisions_name_the_release(two: Gateway) -> None:
    ask(two, digest(two, "next"))
    (row,) = two.ledger()
    assert row["release"] == digest(two, "next")
    (fact,) = [fact for fact in decision.read(row["decided"]) if fact[0] == "release"]
    assert decision.words(fact) == f"release {digest(two, 'next')}, which is next: as the caller asks"


def test_kept_answers_of_one_release_are_not_given_for_another(two: Gateway) -> None:
    assert [text(ask(two, None)) for _ in range(2)] == ["live", "live"]
    pinned = [ask(two, digest(two, "next")) for _ in range(2)]
    assert [text(answer) for answer in pinned] == ["candidate", "candidate"]
    assert [answer.headers["x-trilith-cache"] for answer in pinned] == ["miss", "hit"]


@pytest.mark.parametrize("wanted", ["0123456789ab", "", "next"])
def test_an_unknown_release_is_refused_with_those_that_there_are(two: Gateway, wanted: str) -> None:
    answer = ask(two, wanted)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "release_not_found"
    assert f"{digest(two, 'next')} (next)" in error["message"]


def test_a_release_of_a_model_that_is_no_candidate_is_unknown(two: Gateway) -> None:
    assert ask(two, digest(two, "other")).status_code == 404


def test_a_key_that_may_not_call_the_candidate_may_not_ask_for_its_release(two: Gateway) -> None:
    token = two.mint(models=frozenset({"support"}))
    answer = ask(two, digest(two, "next"), token=token)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "release_denied")
    unknown = ask(two, "0123456789ab", token=token)
    assert digest(two, "next") not in unknown.text
    assert text(ask(two, digest(two, "support"), token=token)) == "live"


def test_no_fallback_answers_for_a_release_that_is_asked_for(start_gateway: StartGateway) -> None:
    failing = MemoryUpstream("live", fail_with=[503, 503, 503, 503])
    gateway = start_gateway(
        {"support": failing, "spare": MemoryUpstream("spare")}, support={"fallbacks": ["spare"]}
    )
    assert text(ask(gateway, None)) == "spare"
    assert ask(gateway, digest(gateway, "support")).status_code == 503


def test_no_route_leads_away_from_a_release_that_is_asked_for(start_gateway: StartGateway) -> None:
    upstreams = {"support": MemoryUpstream("live"), "routed": MemoryUpstream("routed")}
    gateway = start_gateway(
        upstreams,
        support={"routes": [{"model": "routed"}]},
        routed={"upstream": {"url": "http://127.0.0.1:9/v1", "model": "b"}},
    )
    assert text(ask(gateway, None)) == "routed"
    assert text(ask(gateway, digest(gateway, "support"))) == "live"
    assert text(ask(gateway, digest(gateway, "routed"))) == "routed"


def test_a_release_answers_with_its_own_cascade_and_keeps_its_name(start_gateway: StartGateway) -> None:
    upstreams = {"support": MemoryUpstream("large"), "small": MemoryUpstream("small")}
    gateway = start_gateway(upstreams, support={"cascade": [{"model": "small"}]})
    answer = ask(gateway, digest(gateway, "support"), max_tokens=5)
    assert text(answer) in ("small", "large")
    assert answer.headers["x-trilith-release"] == digest(gateway, "support")


def test_naming_candidates_changes_no_release() -> None:
    chat: Mapping[str, Any] = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}}
    plain = Settings.model_validate({"models": {"a": chat, "b": chat}})
    named = Settings.model_validate({"models": {"a": {**chat, "candidates": ["b"]}, "b": chat}})
    assert declared_digest(plain, "a") == declared_digest(named, "a")


def test_a_candidate_that_is_no_model_of_the_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trilith.yaml"
    path.write_text(
        "models:\n  a:\n    kind: chat\n    upstream: {url: 'http://127.0.0.1:9/v1'}\n    candidates: [b]\n",
        encoding="utf-8",
    )
    with pytest.raises(
        SettingsError, match=r"trilith\.yaml:5: models\.a\.candidates.*found 'b', expected one"
    ):
        load_settings(path)
