"""When two requests are the same: their fields' order and some fields do not count, everything else does."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trilith.settings.cache import CacheSettings
from trilith.testing import MemoryUpstream
from trilith.types import Kind
from trilith_gateway import key as keys
from trilith_gateway.api import Api, spoken_by
from trilith_gateway.caching import control, identity
from trilith_gateway.exchange import Exchange
from trilith_gateway.release import Release

TEXT = st.text(max_size=8)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT})
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(MESSAGE, min_size=1, max_size=3),
    "temperature": st.sampled_from([0, 0.5, 1]),
    "top_p": st.sampled_from([0.1, 0.9]),
    "seed": st.integers(0, 3),
    "n": st.integers(2, 3),
    "max_tokens": st.integers(1, 3),
    "stop": st.lists(TEXT, max_size=2),
    "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"a": 1, "b": 2}}}]),
    "tool_choice": st.sampled_from(["auto", "none"]),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    "logprobs": st.booleans(),
    "logit_bias": st.dictionaries(st.sampled_from(["1", "2"]), st.integers(-1, 1)),
    "guided_choice": st.lists(TEXT, max_size=2),
    "a field of tomorrow": TEXT,
}
WITHOUT_EFFECT = {
    "stream": st.booleans(),
    "stream_options": st.just({"include_usage": True}),
    "user": TEXT,
    "metadata": st.just({"a": "b"}),
    "safety_identifier": TEXT,
    "priority": st.integers(0, 3),
    "model": st.just("another name of the same release"),
}
OPTIONAL = {name: values for name, values in VALUES.items() if name != "messages"}
BODY = st.fixed_dictionaries({"messages": VALUES["messages"]}, optional=OPTIONAL)


def exchange(body: dict[str, Any], *, team: str = "a", api: Api = Api.CHAT, **release: Any) -> Exchange:
    made = Exchange(api, "/v1/chat/completions", {}, lambda most: b"")
    made.key, _ = keys.mint("test", team=team)
    facts: dict[str, Any] = {
        "model": "m",
        "kind": Kind.CHAT,
        "digest": "d",
        "upstream": MemoryUpstream(),
        "upstream_model": "m",
        "provider": "vllm",
        "policy": None,
        "price": None,
        "max_output_tokens": 10,
        "cache": CacheSettings(),
    }
    made.release = Release(**facts | release)
    made.body = body
    return made


def key(body: dict[str, Any], version: str = "", **options: Any) -> bytes:
    return identity.key(exchange(body, **options), version)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with the fields of every object in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(part, rng)) for name, part in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(part, rng) for part in value] if isinstance(value, list) else value


@settings(deadline=None)
@given(BODY, st.randoms(use_true_random=False))
def test_the_order_of_fields_does_not_count(body: dict[str, Any], rng: random.Random) -> None:
    again = json.loads(json.dumps(shuffled(body, rng), indent=3))
    assert key(again) == key(body)


@settings(deadline=None)
@given(BODY, st.fixed_dictionaries({}, optional=WITHOUT_EFFECT))
def test_fields_that_change_nothing_in_the_answer_do_not_count(
    body: dict[str, Any], more: dict[str, Any]
) -> None:
    assert key(body | more) == key(body)


@settings(deadline=None)
@given(BODY, st.sampled_from(sorted(VALUES)), st.data())
def test_every_other_field_counts(body: dict[str, Any], name: str, data: st.DataObject) -> None:
    changed = {**body, name: data.draw(VALUES[name].filter(lambda value: value != body.get(name)))}
    assert key(changed) != key(body)
    if name != "messages" and name in body:
        assert key({other: value for other, value in body.items() if other != name}) != key(body)


@settings(deadline=None)
@given(BODY)
def test_what_is_left_out_is_null_and_a_whole_number_may_be_written_with_a_point(
    body: dict[str, Any],
) -> None:
    same = {**body, "presence_penalty": None, **({"temperature": float(body.get("temperature", 0))})}
    assert key(same) == key({**body, "temperature": body.get("temperature", 0)})
    assert key({**body, "n": 1}) == key({n: v for n, v in body.items() if n != "n"})


BASE = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    "other",
    [
        {"team": "b"},
        {"version": "2"},
        {"digest": "e"},
        {"policy": "private"},
        {"policy_digest": "x"},
        {"api": Api.RESPONSE},
    ],
)
def test_nothing_crosses_team_policy_release_or_version(other: dict[str, Any]) -> None:
    assert key(BASE, **other) != key(BASE)
    made = exchange(BASE, **{name: value for name, value in other.items() if name != "version"})
    assert identity.scope(made, other.get("version", "")) != identity.scope(exchange(BASE), "")


def test_headers_that_change_the_answer_count_where_they_go_on() -> None:
    def of(told: dict[str, str], protocol: str = "anthropic") -> bytes:
        made = exchange(BASE, api=Api.MESSAGE, protocol=protocol)
        made.headers = told
        made.operation = spoken_by(made.operation, protocol)
        return identity.key(made, "")

    assert of({"anthropic-beta": "context-1m"}) != of({})
    assert of({"anthropic-version": "2099-01-01"}) != of({})
    assert of({"anthropic-version": "2023-06-01", "traceparent": "00-1"}) == of({"user-agent": "x"})
    assert of({"anthropic-beta": "context-1m"}, "openai") == of({}, "openai")  # it does not go on there


def test_a_message_of_anthropics_form_and_a_chat_are_one_request() -> None:
    assert key(BASE, api=Api.MESSAGE) == key(BASE)


def test_only_the_last_message_may_differ_within_a_scope() -> None:
    def scope(*texts: str, **fields: Any) -> str:
        messages = [{"role": "user", "content": text} for text in texts]
        return identity.scope(exchange({"messages": messages, **fields}), "")

    assert scope("a", "b") == scope("a", "c")
    assert scope("a", "b") != scope("x", "b")
    assert scope("a", "b", max_tokens=3) != scope("a", "b")


@pytest.mark.parametrize(
    ("fields", "asks"),
    [
        ({}, "hello"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}, "hello"),
        ({"tools": [{"type": "function"}]}, None),
        ({"n": 2}, None),
        ({"messages": [{"role": "user", "content": "x" * 2001}]}, None),
        ({"logprobs": True}, None),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, None),
        ({"messages": [{"role": "user", "content": "hello", "name": "ann"}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, None),
        ({"messages": [{"role": "user", "content": "  "}]}, None),
    ],
)
def test_a_question_is_one_whose_answer_is_words(fields: dict[str, Any], asks: str | None) -> None:
    assert identity.question(exchange({**BASE, **fields})) == asks


@pytest.mark.parametrize(
    ("fields", "kind", "certain"),
    [
        ({}, Kind.CHAT, False),
        ({"temperature": 0}, Kind.CHAT, True),
        ({"temperature": 0.0}, Kind.CHAT, True),
        ({"temperature": 0.1}, Kind.CHAT, False),
        ({"temperature": 1, "seed": 0}, Kind.CHAT, True),
        ({}, Kind.RAG, True),
        ({"temperature": 1}, Kind.RAG, False),
        ({"temperature": 1}, Kind.EMBEDDING, True),
        ({}, Kind.PREDICTOR, True),
    ],
)
def test_which_answers_would_be_the_same_again(fields: dict[str, Any], kind: Kind, certain: bool) -> None:
    assert identity.deterministic(exchange({**BASE, **fields}, kind=kind)) is certain


def test_an_answer_that_rests_on_more_than_its_request_is_not_kept() -> None:
    assert identity.cacheable(exchange(BASE))
    assert not identity.cacheable(exchange({**BASE, "previous_response_id": "r"}, api=Api.RESPONSE))
    assert not identity.cacheable(exchange({"name": "x"}, api=Api.PREDICT))


@pytest.mark.parametrize(
    ("header", "wish"),
    [
        (None, control.Wish()),
        ("no-store", control.Wish(stored=False)),
        ("No-Cache", control.Wish(fresh=True)),
        ("no-cache, max-age=5", control.Wish(fresh=True, max_age_s=5.0)),
        ('max-age="10"', control.Wish(max_age_s=10.0)),
        ("max-age=-1", control.Wish()),
        ("max-age=1e3, what=ever", control.Wish()),
        ("max-age=\u00b2", control.Wish()),
        ("max-age=" + "9" * 40, control.Wish()),
    ],
)
def test_a_callers_wishes_are_read_and_nonsense_is_not_heard(header: str | None, wish: control.Wish) -> None:
    assert control.read({} if header is None else {"cache-control": header}) == wish
