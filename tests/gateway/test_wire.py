"""What crosses the wire: the gateway on a real socket, an in-memory upstream behind it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.gateway import Gateway, StartGateway

from trilith.errors import APIConnectionError
from trilith.testing import MemoryUpstream

OPEN_ROUTES = {
    "/health",
    "/healthz",
    "/livez",
    "/ping",
    "/readyz",
    "/metrics",
    "/v2/health/live",
    "/v2/health/ready",
    "/docs",
    "/docs/oauth2-redirect",
    "/openapi.json",
}


def until(condition: Callable[[], object], *, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(chunks: list[Any]) -> str:
    return "".join(
        c["choices"][0]["delta"].get("content") or "" for c in chunks if c != "[DONE]" and c.get("choices")
    )


class TestAccess:
    def test_every_route_but_the_open_ones_refuses_a_caller_without_a_key(self, gateway: Gateway) -> None:
        with httpx.Client(base_url=gateway.url) as stranger:
            paths = stranger.get("/openapi.json").json()["paths"]
            for path, operations in paths.items():
                for method in operations:
                    response = stranger.request(method, path.replace("{name}", "echo"))
                    expected = {200, 503} if path in OPEN_ROUTES else {401}
                    assert response.status_code in expected, (method, path)

    def test_a_key_is_checked_before_the_body_is_read(self, gateway: Gateway) -> None:
        with gateway.client(token="tl_000000000000_" + "x" * 43) as client:
            response = client.post("/v1/chat/completions", content=b"not json at all")
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"

    def test_a_key_that_another_process_makes_is_known_at_once_and_a_revoked_one_refused(
        self, gateway: Gateway
    ) -> None:
        from contextlib import closing

        from trilith_gateway import key
        from trilith_gateway.store import sqlite

        made, token = key.mint("late")
        with (
            gateway.client(token=token) as client,
            closing(sqlite.connect(sqlite.database(gateway.home))) as other,
        ):
            key.save(other, made)
            time.sleep(0.2)  # the gateway looks for unknown keys ten times a second at most
            assert client.get("/v1/models").status_code == 200
            other.execute("update keys set revoked_at = 1 where id = ?", (made.id,))
            until(lambda: client.get("/v1/models").status_code == 401)

    def test_a_key_sees_and_calls_only_its_models(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(), "other": MemoryUpstream()})
        with gateway.client(token=gateway.mint(models=frozenset({"other"}))) as client:
            assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["other"]
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            assert client.post("/v1/chat/completions", json=body).status_code == 404


class TestRequests:
    @pytest.mark.parametrize(
        ("body", "param"),
        [
            (b"{", None),
            (b"[]", None),
            (b'{"model": "echo"}', "messages"),
            (b'{"messages": [{"role": "user"}]}', "model"),
            (b'{"model": "echo", "messages": [1]}', "messages[0]"),
            (b'{"model": "echo", "messages": [{"role": "user"}], "max_tokens": -1}', "max_tokens"),
            (b'{"model": "echo", "messages": [{"role": "user"}], "n": "two"}', "n"),
            (b'{"model": "echo", "messages": [{"role": "user"}], "temperature": NaN}', None),
            (b"[" * 100_000, None),
        ],
    )
    def test_a_malformed_body_is_400_and_says_where(
        self, gateway: Gateway, body: bytes, param: str | None
    ) -> None:
        with gateway.client() as client:
            response = client.post("/v1/chat/completions", content=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param

    def test_a_body_over_the_limit_is_413(self, gateway: Gateway) -> None:
        assert gateway.chat("x" * 9_000_000).status_code == 413

    def test_an_unknown_model_is_404_in_the_callers_protocol(self, gateway: Gateway) -> None:
        assert gateway.chat(model="nobody").json()["error"]["code"] == "model_not_found"
        with gateway.client() as client:
            inputs = [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]
            response = client.post("/v2/models/echo/infer", json={"inputs": inputs})
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)

    def test_fields_that_the_gateway_does_not_know_reach_the_upstream(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        gateway.chat(structured_outputs={"regex": "a+"}, top_k=3, user="ünï")
        (call,) = echo.calls
        sent = json.loads(call.body)
        assert (sent["structured_outputs"], sent["top_k"], sent["user"]) == ({"regex": "a+"}, 3, "ünï")

    def test_the_callers_key_never_reaches_the_upstream(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        gateway.chat()
        (call,) = echo.calls
        assert gateway.token not in str(call.headers) + call.body.decode()


class TestMoney:
    def test_a_charge_is_the_reported_usage_at_the_price(self, gateway: Gateway) -> None:
        response = gateway.chat("one two three")
        usage = response.json()["usage"]
        (row,) = gateway.ledger()
        expected = usage["prompt_tokens"] * 1_000_000 + usage["completion_tokens"] * 3_000_000
        assert (row["amount_pico_usd"], row["rule"]) == (expected, "usage")
        assert row["request_id"] == response.headers["x-request-id"]

    def test_an_answer_without_usage_is_estimated_and_marked(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(reports_usage=False)})
        gateway.chat("one two three")
        (row,) = gateway.ledger()
        assert row["rule"] == "estimate"
        assert row["amount_pico_usd"] > 0

    def test_a_refusal_of_the_upstream_costs_nothing_and_passes_unchanged(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(fail_with=[429])})
        assert gateway.chat().status_code == 429
        (row,) = gateway.ledger()
        assert (row["amount_pico_usd"], row["rule"], row["status"]) == (0, "failed", 429)

    def test_a_budget_refuses_what_it_might_not_cover_and_tells_clients_not_to_retry(
        self, gateway: Gateway
    ) -> None:
        with gateway.client(token=gateway.mint(budget_pico_usd=1_000_000)) as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
            response = client.post("/v1/chat/completions", json=body)
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "insufficient_quota"
        assert response.headers["x-should-retry"] == "false"
        assert gateway.ledger() == []

    def test_concurrent_callers_cannot_overshoot_a_budget(self, gateway: Gateway) -> None:
        from concurrent.futures import ThreadPoolExecutor

        limit = 900_000_000
        token = gateway.mint(budget_pico_usd=limit)
        body = {"model": "echo", "messages": [{"role": "user", "content": "x " * 20}], "max_tokens": 50}
        with gateway.client(token=token) as client, ThreadPoolExecutor(16) as pool:
            answers = list(
                pool.map(lambda _: client.post("/v1/chat/completions", json=body).status_code, range(64))
            )
        assert set(answers) == {200, 429}
        assert sum(row["amount_pico_usd"] for row in gateway.ledger()) <= limit

    def test_a_model_without_a_price_is_a_state_not_zero(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream()}, echo={"price": None})
        assert gateway.chat().status_code == 200
        (row,) = gateway.ledger()
        assert (row["amount_pico_usd"], row["rule"]) == (None, "unpriced")
        with gateway.client(token=gateway.mint(budget_pico_usd=10**12)) as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            assert client.post("/v1/chat/completions", json=body).json()["error"]["code"] == "model_unpriced"

    def test_no_reservation_stays_open(self, gateway: Gateway) -> None:
        gateway.chat()
        gateway.chat(stream=True)
        assert gateway.rows("select * from reservations") == []

    def test_what_cannot_be_recorded_is_not_answered(
        self, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(record: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(gateway.platform.store._journal, "append", full)
        assert gateway.chat().json()["error"]["code"] == "store_unavailable"
        monkeypatch.undo()
        assert gateway.chat().status_code == 200

    def test_a_rate_limit_is_kept_and_told(self, gateway: Gateway) -> None:
        with gateway.client(token=gateway.mint(requests_per_minute=2)) as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            answers = [client.post("/v1/chat/completions", json=body) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"
        assert 0 < int(answers[2].headers["retry-after"]) <= 30


class TestStreams:
    def test_chunks_arrive_as_they_are_made(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(delay_s=0.2)})
        body = {"model": "echo", "messages": [{"role": "user", "content": "a b c d e"}], "stream": True}
        with gateway.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            arrivals = [time.monotonic() for line in response.iter_lines() if line.startswith("data: ")]
        assert arrivals[-1] - arrivals[0] > 0.5

    def test_usage_is_charged_but_not_shown_to_a_caller_who_did_not_ask(self, gateway: Gateway) -> None:
        chunks = events(gateway.chat("one two", stream=True))
        assert chunks[-1] == "[DONE]"
        assert not any("usage" in chunk for chunk in chunks[:-1])
        (row,) = gateway.ledger()
        assert row["rule"] == "usage"
        assert row["output_tokens"] > 0

    def test_usage_is_the_last_chunk_for_a_caller_who_asked(self, gateway: Gateway) -> None:
        chunks = events(gateway.chat("one two", stream=True, stream_options={"include_usage": True}))
        assert chunks[-2]["choices"] == []
        assert chunks[-2]["usage"]["completion_tokens"] == gateway.ledger()[0]["output_tokens"]

    def test_the_charge_is_on_disk_before_the_caller_sees_the_end(self, gateway: Gateway) -> None:
        body = {"model": "echo", "messages": [{"role": "user", "content": "x"}], "stream": True}
        with gateway.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    assert len(gateway.ledger()) == 1

    def test_an_upstream_that_breaks_off_gives_an_error_event_and_no_done(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(break_after=2)})
        chunks = events(gateway.chat("one two three four", stream=True))
        assert "[DONE]" not in chunks
        assert "error" in chunks[-1]
        assert gateway.ledger()[0]["rule"] == "broken"

    @pytest.mark.parametrize("wait_for_text", [True, False])
    def test_a_caller_who_leaves_stops_the_upstream(
        self, start_gateway: StartGateway, wait_for_text: bool
    ) -> None:
        upstream = MemoryUpstream(delay_s=0.05 if wait_for_text else 30)
        gateway = start_gateway({"echo": upstream})
        body = {"model": "echo", "messages": [{"role": "user", "content": "word " * 500}], "stream": True}
        sent = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.token}\r\n"
        raw = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2]))) as caller:
            caller.sendall(f"{sent}content-length: {len(raw)}\r\n\r\n".encode() + raw)
            until(lambda: upstream.calls)
            if wait_for_text:
                caller.recv(100)
        until(lambda: upstream.aborted == 1)
        until(lambda: gateway.ledger())
        (row,) = gateway.ledger()
        assert (row["rule"], row["status"]) == ("aborted", 499)
        assert gateway.rows("select * from reservations where state = 'open'") == []


class TestUpstreams:
    def test_a_connection_that_failed_is_tried_once_more(self, start_gateway: StartGateway) -> None:
        upstream = MemoryUpstream(fail_with=[APIConnectionError("refused")])
        assert start_gateway({"echo": upstream}).chat().status_code == 200
        assert len(upstream.calls) == 2

    def test_an_upstream_that_is_away_is_502(self, start_gateway: StartGateway) -> None:
        refused = APIConnectionError("refused")
        gateway = start_gateway({"echo": MemoryUpstream(fail_with=[refused, refused])})
        assert gateway.chat().status_code == 502

    def test_a_fault_of_ours_tells_the_caller_nothing_of_its_insides(
        self, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(fail_with=[RuntimeError("canary")])})
        response = gateway.chat()
        assert response.status_code == 500
        assert "canary" not in response.text


class TestCache:
    def test_a_kept_stream_is_streamed_again_and_what_it_saved_is_told(
        self, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream()
        gateway = start_gateway({"echo": upstream}, echo={"cache": {"only_deterministic": False}})
        first, again = (gateway.chat("one two", stream=True) for _ in range(2))
        assert again.text == first.text
        assert again.headers["content-type"].startswith("text/event-stream")
        assert len(upstream.calls) == 1
        assert [row["rule"] for row in gateway.ledger()] == ["usage", "cached"]
        assert gateway.ledger()[0]["amount_pico_usd"] == 8_000_000
        assert again.headers["x-trilith-saved-usd"] == "0.000008"

    def test_a_stream_that_broke_off_is_not_kept(self, start_gateway: StartGateway) -> None:
        upstream = MemoryUpstream("a b c d", break_after=2)
        gateway = start_gateway({"echo": upstream}, echo={"cache": {"only_deterministic": False}})
        for _ in range(2):
            assert "[DONE]" not in gateway.chat(stream=True).text
        assert len(upstream.calls) == 2

    def test_an_identical_request_is_answered_once_and_charged_once(
        self, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream()
        gateway = start_gateway({"echo": upstream}, echo={"cache": {"only_deterministic": False}})
        first, second = gateway.chat("same"), gateway.chat("same")
        assert (first.json(), len(upstream.calls)) == (second.json(), 1)
        assert [row["rule"] for row in gateway.ledger()] == ["usage", "cached"]
        assert gateway.ledger()[1]["amount_pico_usd"] == 0

    def test_teams_do_not_share_answers(self, start_gateway: StartGateway) -> None:
        upstream = MemoryUpstream()
        gateway = start_gateway({"echo": upstream}, echo={"cache": {"only_deterministic": False}})
        gateway.chat("same")
        gateway.token = gateway.mint(team="others")
        gateway.chat("same")
        assert len(upstream.calls) == 2


class TestIdempotency:
    def post(self, gateway: Gateway, text: str, name: str) -> httpx.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": text}]}
        with gateway.client(headers={"idempotency-key": name}) as client:
            return client.post("/v1/chat/completions", json=body)

    def test_a_retry_gets_the_first_answer_and_is_not_charged_again(
        self, gateway: Gateway, echo: MemoryUpstream
    ) -> None:
        assert self.post(gateway, "x", "one").json() == self.post(gateway, "x", "one").json()
        assert len(echo.calls) == 1
        assert [row["rule"] for row in gateway.ledger()] == ["usage", "cached"]

    def test_another_name_is_another_request(self, gateway: Gateway, echo: MemoryUpstream) -> None:
        self.post(gateway, "x", "one")
        self.post(gateway, "x", "two")
        assert len(echo.calls) == 2

    def test_a_name_stands_for_one_request_only(self, gateway: Gateway) -> None:
        self.post(gateway, "x", "one")
        response = self.post(gateway, "y", "one")
        assert (response.status_code, response.json()["error"]["code"]) == (422, "idempotency_key_reused")

    def test_a_failed_try_is_not_kept(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream(fail_with=[500])})
        assert self.post(gateway, "x", "one").status_code == 500
        assert self.post(gateway, "x", "one").status_code == 200


class TestPrivacy:
    PROMPT = "Ada Lovelace (ada@example.org) pays with 4111 1111 1111 1111"

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_upstream_sees_placeholders_and_the_caller_the_originals(
        self, start_gateway: StartGateway, stream: bool
    ) -> None:
        upstream = MemoryUpstream(chunks=40)
        gateway = start_gateway({"echo": upstream}, echo={"policy": "private"})
        response = gateway.chat(self.PROMPT, stream=stream)
        sent = upstream.calls[0].body.decode()
        assert not any(secret in sent for secret in ("Ada", "ada@", "4111"))
        assert "<EMAIL_ADDRESS_1>" in sent
        answer = text_of(events(response)) if stream else response.json()["choices"][0]["message"]["content"]
        assert self.PROMPT in answer

    def test_a_masked_request_is_audited_by_types_and_counts(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream()}, echo={"policy": "private"})
        gateway.chat(self.PROMPT)
        (entry,) = gateway.rows("select * from audit")
        assert entry["event"] == "pii.mask"
        assert json.loads(entry["detail"])["entities"] == {"CREDIT_CARD": 1, "EMAIL_ADDRESS": 1, "PERSON": 1}
        assert "ada" not in entry["detail"].lower()

    def test_a_request_without_personal_data_is_not_audited(self, start_gateway: StartGateway) -> None:
        gateway = start_gateway({"echo": MemoryUpstream()}, echo={"policy": "private"})
        gateway.chat("nothing to see")
        assert gateway.rows("select * from audit") == []

    def test_masked_twins_share_a_cached_answer_and_get_their_own_data_back(
        self, start_gateway: StartGateway
    ) -> None:
        upstream = MemoryUpstream()
        gateway = start_gateway(
            {"echo": upstream}, echo={"policy": "private", "cache": {"only_deterministic": False}}
        )
        one, two = gateway.chat("mail a@example.org"), gateway.chat("mail b@example.org")
        assert len(upstream.calls) == 1
        assert "a@example.org" in one.text
        assert "b@example.org" in two.text
        assert "a@example.org" not in two.text


class TestOperation:
    def test_metrics_count_requests_tokens_and_verdicts(self, gateway: Gateway) -> None:
        gateway.chat()
        text = httpx.get(f"{gateway.url}/metrics").text
        assert 'trilith_requests_total{kind="chat",model="echo",status="200"} 1.0' in text
        assert 'trilith_charges_total{kind="chat",model="echo",rule="usage"} 1.0' in text

    def test_names_of_models_that_do_not_exist_do_not_become_labels(self, gateway: Gateway) -> None:
        gateway.chat(model="invented")
        assert "invented" not in httpx.get(f"{gateway.url}/metrics").text

    def test_feedback_is_joined_by_request_id_and_kept_within_the_team(self, gateway: Gateway) -> None:
        request_id = gateway.chat().headers["x-request-id"]
        with gateway.client() as client:
            opinion = {"request_id": request_id, "score": 1, "label": "good"}
            assert client.post("/v1/feedback", json=opinion).status_code == 201
            assert client.post("/v1/feedback", json={**opinion, "colour": "red"}).status_code == 400
            assert client.post("/v1/feedback", content=b"x" * 70_000).status_code == 413
        with gateway.client(token=gateway.mint(team="others")) as client:
            assert client.post("/v1/feedback", json=opinion).status_code == 404
        (row,) = gateway.rows("select * from feedback")
        assert (row["request_id"], row["score"], row["label"]) == (request_id, 1.0, "good")

    def test_a_request_makes_one_tree_that_hangs_under_the_callers_span(
        self, gateway: Gateway, spans: Any
    ) -> None:
        trace_id = "0af7651916cd43dd8448eb211c80319c"
        with gateway.client(headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}) as client:
            body = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            client.post("/v1/chat/completions", json=body)
        until(lambda: "chat echo" in [span.name for span in spans.get_finished_spans()])
        attempt, root = spans.get_finished_spans()
        assert (root.name, attempt.name) == ("chat echo", "attempt echo")
        assert f"{root.context.trace_id:032x}" == trace_id
        assert attempt.parent.span_id == root.context.span_id
