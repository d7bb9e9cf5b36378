"""What each call puts on the wire, and what it makes of the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from support.caller import ANSWER, Caller, chat
from support.scripted_server import Scripted, ScriptedServer, Serve

from trilith import (
    AsyncClient,
    Citation,
    Client,
    DataError,
    Message,
    ModelCard,
    RawResponse,
    SettingsError,
    Usage,
    traced,
)

RECORDED = json.loads((Path(__file__).parent / "recorded" / "vllm_answer.json").read_text(encoding="utf-8"))
PASSAGE = {
    "number": 1,
    "document_id": "a.md",
    "path": "a.md",
    "start": 3,
    "end": 9,
    "quote": "twelve",
    "page": None,
    "title": "A",
    "score": 0.5,
    "supported": True,
}


@pytest.fixture
def server(serve: Serve) -> ScriptedServer:
    return serve(Scripted(body=ANSWER, headers={"x-request-id": "req_1", "X-Trilith-Cost-USD": "0.1"}))


class TestAddress:
    @pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
    def test_the_address_may_end_in_v1(self, caller: Caller, server: ScriptedServer, end: str) -> None:
        caller(server.url + end, chat)
        assert server.received[0].path == "/v1/chat/completions"

    def test_a_path_before_the_api_is_kept(self, caller: Caller, server: ScriptedServer) -> None:
        caller(server.url + "/ml/v1", chat)
        assert server.received[0].path == "/ml/v1/chat/completions"

    def test_address_and_key_may_come_from_the_environment(
        self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRILITH_BASE_URL", server.url)
        monkeypatch.setenv("TRILITH_API_KEY", "from-there")
        with Client() as client:
            chat(client)
        assert server.received[0].headers["authorization"] == "Bearer from-there"

    def test_without_an_address_the_cure_is_named(self) -> None:
        with pytest.raises(SettingsError, match="TRILITH_BASE_URL"):
            Client()

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1:80",
            "ftp://x",
            "http://",
            "http://x/?a=1",
            "http://x/#a",
            "http://x:port",
            "http://[::1",
            "http://a b",
        ],
    )
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        with pytest.raises(SettingsError, match="expected an address"):
            AsyncClient(address)

    @pytest.mark.parametrize(
        "options",
        [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"timeout_s": float("inf")}, {"max_retries": -1}],
    )
    def test_what_cannot_be_right_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(SettingsError, match="expected"):
            Client("http://x", **options)

    def test_a_key_with_a_line_break_is_refused_and_not_shown(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Client("http://x", "tl_secret\n")
        assert "secret" not in str(caught.value)

    def test_a_password_in_the_address_is_refused_and_not_shown(self) -> None:
        with pytest.raises(SettingsError, match="api_key") as caught:
            Client("http://ann:secret@x")
        assert "secret" not in str(caught.value)

    def test_a_timeout_of_one_call_must_be_right_too(self, caller: Caller, server: ScriptedServer) -> None:
        with pytest.raises(SettingsError, match="timeout_s is -1"):
            caller(server.url, lambda client: chat(client, timeout_s=-1))

    def test_without_a_key_none_is_sent(self, server: ScriptedServer) -> None:
        with Client(server.url) as client:
            chat(client)
        assert "authorization" not in server.received[0].headers


class TestChat:
    def test_the_body_is_openai_s_and_nothing_else(self, caller: Caller, server: ScriptedServer) -> None:
        caller(server.url, lambda client: chat(client, temperature=0, max_tokens=None, stop=["x"]))
        assert server.received[0].json() == {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "temperature": 0,
            "stop": ["x"],
        }
        assert server.received[0].headers["content-type"] == "application/json"
        assert server.received[0].headers["user-agent"].startswith("trilith/")

    def test_extra_fields_and_headers_go_along(self, caller: Caller, server: ScriptedServer) -> None:
        extra: dict[str, Any] = {"extra_body": {"top_k": 4}, "extra_headers": {"X-Team": "b"}}
        caller(
            server.url, lambda client: chat(client, **extra), default_headers={"x-team": "a", "x-app": "c"}
        )
        sent = server.received[0]
        assert sent.json()["top_k"] == 4
        assert (sent.headers["x-team"], sent.headers["x-app"]) == ("b", "c")

    def test_text_travels_as_it_is(self, caller: Caller, server: ScriptedServer) -> None:
        caller(server.url, lambda client: chat(client, messages=[Message("user", "naïve € 😀")]))
        assert "naïve € 😀".encode() in server.received[0].body

    def test_a_misspelt_argument_is_refused(self, caller: Caller, server: ScriptedServer) -> None:
        with pytest.raises(TypeError, match=r"temprature.*extra_body"):
            caller(server.url, lambda client: chat(client, temprature=0))
        assert server.received == []

    @pytest.mark.parametrize("value", [float("nan"), object(), "\ud800"])
    def test_what_json_cannot_carry_is_refused(
        self, caller: Caller, server: ScriptedServer, value: object
    ) -> None:
        with pytest.raises(DataError, match="cannot be written as JSON"):
            caller(server.url, lambda client: chat(client, extra_body={"x": value}))

    @pytest.mark.parametrize("value", ["a\r\nx-admin: 1", "naïve"])
    def test_a_header_that_cannot_be_sent_is_refused(
        self, caller: Caller, server: ScriptedServer, value: str
    ) -> None:
        with pytest.raises(DataError, match="header 'x-a' cannot be sent"):
            caller(server.url, lambda client: chat(client, extra_headers={"x-a": value}))

    def test_a_recorded_answer_is_read_with_all_that_the_server_added(
        self, caller: Caller, serve: Serve
    ) -> None:
        server = serve(Scripted(body=RECORDED, headers={"x-request-id": "req_2"}))
        answer = caller(server.url, chat)
        assert answer.choices[0].message.content == "Hello there! I'm here to help"
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (33, 8)
        assert answer.system_fingerprint == "vllm-0.32.0-b4fc088b"
        assert answer.request_id == "req_2"

    def test_a_message_of_the_model_can_be_sent_back(self, serve: Serve) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        server = serve(Scripted(body={**ANSWER, "choices": [{"message": message}]}))
        with Client(server.url) as client:
            said = chat(client).choices[0].message
            chat(client, messages=[said])
        assert server.received[1].json()["messages"] == [
            {"role": "assistant", "tool_calls": [call]},
        ]


class TestAsk:
    def test_the_answer_says_on_what_it_rests(self, caller: Caller, serve: Serve) -> None:
        message = {"role": "assistant", "content": "Twelve [1].", "citations": [PASSAGE]}
        body = {**ANSWER, "model": "docs", "choices": [{"message": message}]}
        server = serve(Scripted(body=body, headers={"x-request-id": "req_3"}))
        answer = caller(server.url, lambda client: client.ask("docs", "How many?"))
        assert answer.text == "Twelve [1]."
        assert answer.citations == (Citation(1, "a.md", "a.md", 3, 9, "twelve", None, "A", 0.5, True),)
        assert (answer.model, answer.request_id) == ("docs", "req_3")
        assert answer.usage == Usage(input_tokens=3, output_tokens=1)

    def test_the_question_follows_the_history(self, caller: Caller, server: ScriptedServer) -> None:
        history = [Message("user", "Hi"), {"role": "assistant", "content": "Hello"}]
        caller(server.url, lambda client: client.ask("docs", "Why?", history=history, max_tokens=9))
        sent = server.received[0].json()
        assert [message["content"] for message in sent["messages"]] == ["Hi", "Hello", "Why?"]
        assert sent["max_tokens"] == 9

    def test_cached_and_reasoning_tokens_are_counted(self, caller: Caller, serve: Serve) -> None:
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 2},
        }
        server = serve(Scripted(body={**ANSWER, "usage": usage}))
        answer = caller(server.url, lambda client: client.ask("docs", "Why?"))
        assert answer.usage == Usage(10, 5, cached_input_tokens=4, reasoning_tokens=2)


class TestOthers:
    def test_embeddings(self, caller: Caller, serve: Serve) -> None:
        body = {"data": [{"index": 0, "embedding": [0.5, 1]}], "model": "e", "usage": {"prompt_tokens": 2}}
        server = serve(Scripted(body=body, headers={"x-request-id": "req_4"}))
        found = caller(server.url, lambda client: client.embeddings.create(model="e", input=["a"]))
        assert server.received[0].path == "/v1/embeddings"
        assert server.received[0].json() == {"model": "e", "input": ["a"]}
        assert (found.data[0].embedding, found.usage.prompt_tokens, found.request_id) == (
            [0.5, 1.0],
            2,
            "req_4",
        )

    def test_models_are_listed(self, caller: Caller, serve: Serve) -> None:
        row = {"id": "m", "kind": "chat", "owned_by": "vllm", "priced": True, "created": 1, "release": "abc"}
        server = serve(Scripted(body={"object": "list", "data": [row]}))
        found = caller(server.url, lambda client: client.models.list())
        assert found == [ModelCard.model_validate(row)]
        assert (found[0].kind, found[0].priced) == ("chat", True)
        assert (server.received[0].method, server.received[0].path) == ("GET", "/v1/models")
        assert server.received[0].body == b""

    def test_one_model_is_looked_up_whatever_its_name(self, caller: Caller, serve: Serve) -> None:
        server = serve(Scripted(body={"id": "org/m ü", "owned_by": "x"}))
        assert caller(server.url, lambda client: client.models.retrieve("org/m ü")).id == "org/m ü"
        assert server.received[0].path == "/v1/models/org%2Fm%20%C3%BC"

    def test_feedback(self, caller: Caller, serve: Serve) -> None:
        server = serve(Scripted(201, {"id": "f1", "request_id": "req_1"}))
        given = caller(server.url, lambda client: client.feedback("req_1", score=1, comment="good"))
        assert server.received[0].path == "/v1/feedback"
        assert server.received[0].json() == {
            "request_id": "req_1",
            "score": 1,
            "label": None,
            "comment": "good",
        }
        assert given.id == "f1"


class TestRawResponse:
    def test_headers_come_with_the_result(self, caller: Caller, server: ScriptedServer) -> None:
        raw: RawResponse[Any] = caller(server.url, lambda client: chat(client.with_raw_response))
        assert (raw.status_code, raw.request_id) == (200, "req_1")
        assert raw.headers["x-trilith-cost-usd"] == "0.1"
        assert raw.parse().choices[0].message.content == "hi"

    def test_a_stream_has_headers_too(self, serve: Serve) -> None:
        server = serve(Scripted(parts=[b"data: [DONE]\n\n"], headers={"x-request-id": "req_6"}))
        with Client(server.url) as client:
            raw = chat(client.with_raw_response, stream=True)
            assert raw.request_id == "req_6"
            assert list(raw.parse()) == []

    @pytest.mark.parametrize(
        ("call", "body"),
        [
            (lambda raw: raw.models.list(), {"data": []}),
            (lambda raw: raw.models.retrieve("m"), {"id": "m"}),
            (lambda raw: raw.embeddings.create(model="e", input="a"), {"data": []}),
            (lambda raw: raw.ask("m", "Why?"), ANSWER),
            (lambda raw: raw.predict("m", [{"a": 1}]), {"outputs": []}),
            (lambda raw: raw.feedback("req_1"), {"id": "1", "request_id": "req_1"}),
        ],
    )
    def test_every_call_has_a_raw_twin(self, caller: Caller, serve: Serve, call: Any, body: object) -> None:
        server = serve(Scripted(body=body, headers={"x-request-id": "req_8"}))
        raw = caller(server.url, lambda client: call(client.with_raw_response))
        assert raw.request_id == "req_8"
        assert not isinstance(raw.parse(), RawResponse)


class TestOptions:
    def test_a_copy_has_other_choices_on_the_same_connection(self, server: ScriptedServer) -> None:
        with Client(server.url, default_headers={"x-app": "a"}) as client:
            chat(client)
            with client.with_options(headers={"X-Team": "b"}, max_retries=0) as copy:
                chat(copy)
            chat(client)  # leaving the copy's block has closed nothing
        first, second, third = (received.headers for received in server.received)
        assert ("x-team" in first, second["x-team"], "x-team" in third) == (False, "b", False)
        assert second["x-app"] == "a"
        assert "idempotency-key" not in second
        assert server.connections == 1

    def test_a_caller_s_own_pool_is_used_and_left_open(self, server: ScriptedServer) -> None:
        import httpx

        with httpx.Client(headers={"x-pool": "mine"}) as pool:
            with Client(server.url, http_client=pool) as client:
                chat(client)
            assert not pool.is_closed
        assert server.received[0].headers["x-pool"] == "mine"

    async def test_an_async_copy_closes_nothing(self, server: ScriptedServer) -> None:
        async with AsyncClient(server.url) as client:
            async with client.with_options(timeout_s=5) as copy:
                await chat(copy)
            await chat(client)
        assert server.connections == 1


class TestTrace:
    def test_a_call_belongs_to_the_trace_of_the_app_s_function(
        self, caller: Caller, server: ScriptedServer
    ) -> None:
        @traced
        def app() -> trace.SpanContext:
            caller(server.url, chat)
            return trace.get_current_span().get_span_context()

        context = app()
        _, trace_id, span_id, _ = server.received[0].headers["traceparent"].split("-")
        assert (int(trace_id, 16), int(span_id, 16)) == (context.trace_id, context.span_id)

    def test_without_a_span_no_trace_is_claimed(self, caller: Caller, server: ScriptedServer) -> None:
        caller(server.url, chat)
        assert "traceparent" not in server.received[0].headers
