"""What callers see of the caches, over real HTTP: hits, both forms, their own wishes, and no crossing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from support.gateway import Gateway, StartGateway
from support.installed import until

from trilith.errors import APITimeoutError
from trilith.seams import Call
from trilith.testing import MemoryReply, MemoryUpstream
from trilith_gateway.release import ReleaseTable

KEEPS: dict[str, Any] = {"cache": {"ttl_s": 60}}
USAGE = {"include_usage": True}


@pytest.fixture
def echo() -> MemoryUpstream:
    return MemoryUpstream()


@pytest.fixture
def gateway(start_gateway: StartGateway, echo: MemoryUpstream) -> Gateway:
    return start_gateway({"echo": echo}, echo=KEEPS)


def ask(
    gateway: Gateway, text: str = "one two", headers: Any = None, expected: int = 200, **fields: Any
) -> httpx.Response:
    messages = [{"role": "user", "content": text}]
    body = {"model": "echo", "messages": messages, "temperature": 0, **fields}
    with gateway.client(headers=headers or {}) as client:
        response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == expected
    return response


def word(response: httpx.Response) -> str | None:
    found: str | None = response.headers.get("x-trilith-cache")
    return found


def client_of(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0)


class TestForms:
    def test_the_same_form_is_given_again_byte_for_byte(self, gateway: Gateway) -> None:
        forms: tuple[dict[str, Any], ...] = ({}, {"stream": True, "seed": 1})
        for fields in forms:
            first, again = (ask(gateway, **fields) for _ in range(2))
            assert again.content == first.content
            assert (word(first), word(again), again.headers["age"]) == ("miss", "hit", "0")

    def test_a_whole_answer_is_streamed_to_who_wants_a_stream(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        whole = ask(gateway).json()
        with client_of(gateway) as client:
            chunks = list(
                client.chat.completions.create(
                    model="echo",
                    messages=[{"role": "user", "content": "one two"}],
                    temperature=0,
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )
        assert len(echo.calls) == 1
        assert chunks[0].choices[0].delta.role == "assistant"
        said = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(said) == whole["choices"][0]["message"]["content"]
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole["usage"]["completion_tokens"]
        assert {c.id for c in chunks} == {whole["id"]}

    def test_a_stream_is_folded_for_who_wants_it_whole(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        ask(gateway, stream=True)
        with client_of(gateway) as client:
            messages: Any = [{"role": "user", "content": "one two"}]
            answer = client.chat.completions.create(model="echo", messages=messages, temperature=0)
        assert len(echo.calls) == 1
        assert answer.object == "chat.completion"
        assert answer.choices[0].message.content == "one two"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 4

    @pytest.mark.parametrize(
        ("first", "then"), [({}, {"stream_options": USAGE}), ({"stream_options": USAGE}, {})]
    )
    def test_a_stream_tells_its_usage_to_who_asks_for_it(
        self, gateway: Gateway, first: dict[str, Any], then: dict[str, Any]
    ) -> None:
        ask(gateway, stream=True, **first)
        again = ask(gateway, stream=True, **then)
        assert word(again) == "hit"
        assert ('"usage":{' in again.text.replace(" ", "")) == bool(then)
        assert again.text.rstrip().endswith("data: [DONE]")

    def test_a_hit_is_charged_nothing_and_its_saving_is_on_the_bill(self, gateway: Gateway) -> None:
        ask(gateway)
        hit = ask(gateway, stream=True)
        paid, free = gateway.ledger()
        assert (paid["rule"], free["rule"], free["amount_pico_usd"]) == ("usage", "cached", 0)
        assert (paid["saved_pico_usd"], free["saved_pico_usd"]) == (0, paid["amount_pico_usd"])
        assert hit.headers["x-trilith-saved-usd"] == "0.000008"
        text = httpx.get(f"{gateway.url}/metrics").text
        assert 'trilith_saved_usd_total{kind="chat",model="echo"} 8e-06' in text


class TestWishes:
    def test_an_answer_that_would_differ_next_time_is_kept_only_when_that_is_allowed(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        assert [word(ask(gateway, temperature=1)) for _ in range(2)] == ["bypass", "bypass"]
        allowed = {"cache-control": "max-age=60"}
        assert [word(ask(gateway, temperature=1, headers=allowed)) for _ in range(2)] == ["miss", "hit"]
        assert len(echo.calls) == 3

    def test_no_store_leaves_no_trace_and_takes_nothing(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        nothing = {"cache-control": "no-store"}
        assert word(ask(gateway, headers=nothing)) == "bypass"
        assert word(ask(gateway)) == "miss"
        assert word(ask(gateway, headers=nothing)) == "bypass"
        assert len(echo.calls) == 3

    def test_no_cache_asks_the_model_and_renews_what_is_kept(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        first = ask(gateway).json()
        echo._reply = lambda _: "renewed"
        assert word(fresh := ask(gateway, headers={"cache-control": "no-cache"})) == "bypass"
        assert fresh.json() != first
        assert ask(gateway).json() == fresh.json()

    def test_an_answer_older_than_max_age_will_not_do(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        ask(gateway)
        assert word(ask(gateway, headers={"cache-control": "max-age=0"})) == "miss"
        assert word(ask(gateway, headers={"cache-control": "max-age=1000"})) == "hit"

    def test_a_model_that_keeps_nothing_says_nothing(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream()})
        assert word(ask(gateway)) is None


class TestCrossing:
    def test_another_team_gets_an_answer_of_its_own(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        ask(gateway)
        gateway.token = gateway.mint(team="others")
        assert word(ask(gateway)) == "miss"
        assert len(echo.calls) == 2

    def test_another_version_of_the_documents_is_asked_anew(self, start_gateway: StartGateway) -> None:
        class Indexed(MemoryUpstream):
            present: str | None = "1"

            def version(self) -> str | None:
                return self.present

        indexed = Indexed()
        gateway = start_gateway({"echo": indexed}, echo=KEEPS)
        assert [word(ask(gateway)) for _ in range(2)] == ["miss", "hit"]
        indexed.present = "2"
        assert [word(ask(gateway)) for _ in range(2)] == ["miss", "hit"]
        indexed.present = None  # nobody knows
        assert [word(ask(gateway)) for _ in range(2)] == ["bypass", "bypass"]
        indexed.present = "1"
        assert word(ask(gateway)) == "hit"

    def test_an_answer_during_which_the_documents_changed_is_not_kept(
        self, start_gateway: StartGateway
    ) -> None:
        class Moving(MemoryUpstream):
            number = 0

            def version(self) -> str:
                return str(self.number)

        moving = Moving()

        def reply(_: dict[str, Any]) -> str:
            moving.number += 1
            return "x"

        moving._reply = reply
        gateway = start_gateway({"echo": moving}, echo=KEEPS)
        ask(gateway)
        moving.number = 0
        assert word(ask(gateway)) == "miss"

    def test_what_a_fallback_said_is_not_kept_for_the_model_that_was_asked(
        self, start_gateway: StartGateway
    ) -> None:
        echo = MemoryUpstream(fail_with=[503, 503])
        upstreams = {"echo": echo, "spare": MemoryUpstream("from spare")}
        gateway = start_gateway(upstreams, echo={**KEEPS, "fallbacks": ["spare"]})
        assert "from spare" in ask(gateway).text
        echo._failures.clear()
        assert "from spare" not in ask(gateway).text

    def test_a_changed_policy_does_not_answer_with_what_was_kept_before(self) -> None:
        from trilith.settings.schema import Settings
        from trilith.telemetry import tracer
        from trilith_gateway.opening import open_releases

        def digest(policy: dict[str, Any]) -> str:
            upstream = {"url": "http://127.0.0.1:9/v1"}
            model = {"kind": "chat", "upstream": upstream, "policy": "p", **KEEPS}
            settings = Settings.model_validate({"policies": {"p": policy}, "models": {"m": model}})
            found = open_releases(settings, {}, tracer(None)).find("m")
            assert found is not None
            return found.policy_digest

        assert digest({}) == digest({})
        assert digest({}) != digest({"pii": {"min_score": 0.9}})


class Gated(MemoryUpstream):
    """Says each next word, and sends its first, only when it is let."""

    def __init__(self, reply: str = "a b c", **options: Any) -> None:
        super().__init__(reply, **options)
        self.allowed = 0
        self.taken = 0

    async def send(self, call: Call) -> MemoryReply:
        self.calls.append(call)
        try:
            await self.pass_gate()
        except asyncio.CancelledError:
            self._abort()
            raise
        self.calls.pop()
        return await super().send(call)

    async def pass_gate(self) -> None:
        while self.allowed <= self.taken:  # noqa: ASYNC110, another thread opens it
            await asyncio.sleep(0.002)
        self.taken += 1

    async def _stream(self, *arguments: Any) -> AsyncIterator[bytes]:
        async for part in super()._stream(*arguments):
            await self.pass_gate()
            yield part


class Hasty(Gated):
    """Keeps to a call's time, as an upstream over HTTP does."""

    async def send(self, call: Call) -> MemoryReply:
        ends = asyncio.get_running_loop().time() + call.timeout_s
        with _in_time():
            async with asyncio.timeout_at(ends):
                reply = await super().send(call)
        chunks = reply.chunks

        async def timed() -> AsyncIterator[bytes]:
            with _in_time():
                async with asyncio.timeout_at(ends):
                    async for chunk in chunks():
                        yield chunk

        reply.chunks = timed  # type: ignore[method-assign]  # an answer of this model only
        return reply


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise APITimeoutError("it did not answer in time") from None


class Together:
    """Callers in threads, and a look at how many of them the gateway is busy with."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.pool = ThreadPoolExecutor(8)
        self.busy = 0

    def ask(self, count: int = 1, *, text: str = "one two", **options: Any) -> list[Future[httpx.Response]]:
        """Send requests and wait until the gateway has them."""
        made = [self.pool.submit(ask, self.gateway, text, **options) for _ in range(count)]
        self.busy += count
        self.settle()
        return made

    def connect(self, *, stream: bool) -> socket.socket:
        """Send one request over a socket of its own, that can be closed at any moment."""
        body = json.dumps({**BODY, "stream": stream}).encode()
        address = urlsplit(self.gateway.url)
        caller = socket.create_connection((address.hostname, address.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self.gateway.token}"
        caller.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        self.busy += 1
        self.settle()
        return caller

    def leave(self, caller: socket.socket) -> None:
        caller.close()
        self.busy -= 1
        self.settle()

    def settle(self) -> None:
        until(lambda: self.gateway.platform.metrics.open == self.busy, what=f"{self.busy} being under way")


BODY = {"model": "echo", "messages": [{"role": "user", "content": "one two"}], "temperature": 0}


class TestTogether:
    @pytest.fixture
    def model(self) -> Gated:
        return Gated()

    @pytest.fixture
    def start(self, start_gateway: StartGateway, model: Gated) -> Callable[..., Together]:
        return lambda **settings: Together(start_gateway({"echo": model}, echo=settings))

    @pytest.mark.parametrize("stream", [False, True])
    def test_identical_calls_under_way_are_one_call_and_one_charge(
        self, start: Callable[..., Together], model: Gated, stream: bool
    ) -> None:
        together = start(cache={"ttl_s": 0})
        asked = together.ask(6, stream=stream)
        model.allowed = 100
        answers = [one.result() for one in asked]
        assert len(model.calls) == 1
        assert len({answer.content for answer in answers}) == 1
        assert sorted(str(word(answer)) for answer in answers) == [*["joined"] * 5, "miss"]
        rows = together.gateway.ledger()
        assert sorted(row["rule"] for row in rows) == [*["cached"] * 5, "usage"]
        (paid,) = [row["amount_pico_usd"] for row in rows if row["rule"] == "usage"]
        assert paid > 0
        assert [row["saved_pico_usd"] for row in rows if row["rule"] == "cached"] == [paid] * 5
        assert together.gateway.rows("select * from reservations") == []

    def test_each_gets_its_own_data_back_from_a_shared_stream(
        self, start: Callable[..., Together], model: Gated
    ) -> None:
        model._reply = lambda request: str(request["messages"][-1]["content"])
        together = start(policy="private", **KEEPS)
        asked = [together.ask(text=f"mail {name}@example.org", stream=True)[0] for name in ("a", "b")]
        model.allowed = 100
        one, two = (answer.result().text for answer in asked)
        assert len(model.calls) == 1
        assert "a@example.org" in one
        assert "b@example.org" not in one
        assert "b@example.org" in two

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_time_of_one_caller_ends_the_call_for_nobody_else(
        self, start_gateway: StartGateway, stream: bool
    ) -> None:
        model = Hasty()
        together = Together(start_gateway({"echo": model}, echo={"cache": {"ttl_s": 0}}))
        model.allowed = 2 if stream else 0  # a stream's head and its first word
        expected = 200 if stream else 504
        hasty = {"x-request-timeout-ms": "1500"}
        (leader,) = together.ask(headers=hasty, stream=stream, expected=expected)
        (patient,) = together.ask(stream=stream)
        (too,) = together.ask(headers=hasty, stream=stream, expected=expected)
        for asked in (leader, too):
            assert '"timeout"' in asked.result().text
            assert "[DONE]" not in asked.result().text
        model.allowed = 100
        assert patient.result().status_code == 200
        assert '"error"' not in patient.result().text
        assert (len(model.calls), model.aborted) == (1, 0)

    def test_those_who_only_listened_to_a_failure_try_once_more_together(
        self, start: Callable[..., Together], model: Gated
    ) -> None:
        model._failures.append(503)
        together = start(**KEEPS)
        (leader,) = together.ask(expected=503)
        followers = together.ask(3)
        model.allowed = 100
        assert leader.result().status_code == 503
        assert {one.result().status_code for one in followers} == {200}
        assert len(model.calls) == 2
        rules = sorted(row["rule"] for row in together.gateway.ledger())
        assert rules == ["cached", "cached", "failed", "usage"]

    def test_a_retry_with_the_same_name_waits_for_the_first_try(
        self, start: Callable[..., Together], model: Gated
    ) -> None:
        together = start()
        named: dict[str, Any] = {"headers": {"idempotency-key": "one"}, "temperature": 1}
        asked = together.ask(3, **named)
        model.allowed = 100
        assert len({one.result().content for one in asked}) == 1
        assert len(model.calls) == 1
        assert sorted(row["rule"] for row in together.gateway.ledger()) == ["cached", "cached", "usage"]
        assert word(ask(together.gateway, **named)) == "hit"

    def test_a_retry_gets_the_first_tries_answer_after_the_models_release_has_changed(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        named: dict[str, Any] = {"headers": {"idempotency-key": "one"}, "temperature": 1}
        first = ask(gateway, **named)
        table = gateway.platform.releases
        found = table.find("echo")
        assert found is not None
        table.replace(ReleaseTable({"echo": replace(found, digest="other")}))
        again = ask(gateway, **named)
        assert (word(again), again.content, len(echo.calls)) == ("hit", first.content, 1)
        assert (
            ask(gateway, "three", expected=422, **named).json()["error"]["code"] == "idempotency_key_reused"
        )

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("words", range(5))
    def test_the_leaders_hang_up_at_any_moment_leaves_the_others_their_answer_and_one_of_them_the_bill(
        self, start: Callable[..., Together], model: Gated, words: int, stream: bool
    ) -> None:
        together = start(**KEEPS)
        leader = together.connect(stream=stream)
        asked = together.ask(3, stream=stream)
        if stream or not words:  # a whole answer comes as soon as it may
            model.allowed = words
            until(lambda: model.taken == words, what="the words being said")
        together.leave(leader)
        model.allowed = 100
        answers = [_text(one.result(), stream) for one in asked]
        assert answers == ["a b c"] * 3
        assert (len(model.calls), model.aborted) == (1, 0)
        rows = together.gateway.ledger()
        assert sorted(row["rule"] for row in rows) == ["aborted", "cached", "cached", "usage"]
        assert [row["rule"] for row in rows if row["amount_pico_usd"]] == ["usage"]
        assert word(ask(together.gateway, stream=stream)) == "hit"

    @pytest.mark.parametrize("words", [0, 2])
    def test_the_upstream_is_aborted_when_all_have_left(
        self, start: Callable[..., Together], model: Gated, words: int
    ) -> None:
        together = start(**KEEPS)
        callers = [together.connect(stream=True) for _ in range(3)]
        model.allowed = words
        until(lambda: model.taken == words, what="the words being said")
        for caller in callers:
            assert model.aborted == 0
            together.leave(caller)
        until(lambda: model.aborted, what="the abort")
        assert (len(model.calls), model.aborted) == (1, 1)
        assert [row["rule"] for row in together.gateway.ledger()] == ["aborted"] * 3
        assert together.gateway.rows("select * from reservations") == []


def _text(response: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
