"""What operators rely on: headers on every answer, explanations, bounded metrics, reloads, and a calm end."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.gateway import PRICE, Gateway
from support.installed import Platform, until
from support.scripted_server import Scripted, ScriptedServer
from support.world import MODELS, Broken, Speaker, Spoken, world

from trilith.seams import Call, Reply
from trilith.testing import MemoryUpstream
from trilith_gateway.commands import explain

CHAT = {"messages": [{"role": "user", "content": "a b c"}]}
TENSOR = {"inputs": [{"name": "a", "shape": [2], "datatype": "FP64", "data": [1, 2]}]}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with world(tmp_path / "home") as running:
        yield running


def post(gateway: Gateway, path: str, body: Any, **headers: str) -> httpx.Response:
    with gateway.client(headers=headers) as client:
        return client.post(path, json=body)


def explained(gateway: Gateway, answered: httpx.Response) -> tuple[dict[str, Any], str]:
    gateway.platform.store.flush()
    found = explain.explain(gateway.platform.settings, answered.headers["x-request-id"])
    return found, explain._text(found)


ANSWERS: dict[str, tuple[str, Any, int]] = {
    "a chat": ("/v1/chat/completions", {"model": "chat", **CHAT}, 200),
    "a stream": ("/v1/chat/completions", {"model": "chat", "stream": True, **CHAT}, 200),
    "a masked chat": ("/v1/chat/completions", {"model": "guarded", **CHAT}, 200),
    "a document's answer": ("/v1/chat/completions", {"model": "library", **CHAT}, 200),
    "a completion": ("/v1/completions", {"model": "chat", "prompt": "x"}, 200),
    "vectors": ("/v1/embeddings", {"model": "vectors", "input": "x"}, 200),
    "a response": ("/v1/responses", {"model": "chat", "input": "x"}, 200),
    "a message": ("/v1/messages", {"model": "chat", "max_tokens": 5, **CHAT}, 200),
    "a prediction": ("/v2/models/bikes/infer", TENSOR, 200),
    "an invocation": ("/invocations", {"instances": [[1]]}, 200),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_answer_of_a_model_says_what_gave_it_and_what_it_cost(gateway: Gateway, answer: str) -> None:
    path, body, status = ANSWERS[answer]
    answered = post(gateway, path, body)
    assert answered.status_code == status
    told = answered.headers
    assert told["x-request-id"].startswith("req_")
    assert re.fullmatch(r"[0-9a-f]{12}", told["x-trilith-release"])
    assert float(told["x-trilith-overhead-ms"]) >= 0
    if "stream" not in body:
        assert float(told["x-trilith-cost-usd"]) > 0


REFUSALS: dict[str, tuple[str, Any, dict[str, str], int]] = {
    "no key": ("/v1/chat/completions", {}, {"authorization": ""}, 401),
    "no model": ("/v1/chat/completions", {"model": "nobody", **CHAT}, {}, 404),
    "no JSON object": ("/v1/messages", [], {}, 400),
    "compressed": ("/v2/models/bikes/infer", {}, {"content-encoding": "br"}, 415),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_every_refusal_has_an_id_and_says_how_long_it_took(gateway: Gateway, refusal: str) -> None:
    path, body, headers, status = REFUSALS[refusal]
    answered = post(gateway, path, body, **headers)
    assert answered.status_code == status
    assert {"x-request-id", "x-trilith-overhead-ms", "openai-processing-ms"} <= answered.headers.keys()


def test_a_cached_answer_says_so_and_what_was_saved(gateway: Gateway) -> None:
    first, second = (post(gateway, "/v1/chat/completions", {"model": "kept", **CHAT}) for _ in range(2))
    assert first.headers["x-trilith-cache"] == "miss"
    assert second.headers["x-trilith-cache"] == "hit"
    assert second.headers["x-trilith-saved-usd"] == first.headers["x-trilith-cost-usd"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/chat", "/v2", "/healthz", "/metrics", "/nothing"])
def test_every_other_answer_has_an_id_too(gateway: Gateway, path: str) -> None:
    with gateway.client() as client:
        assert client.get(path).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_kind_of_answer_is_explained(gateway: Gateway, answer: str) -> None:
    path, body, _ = ANSWERS[answer]
    found, text = explained(gateway, post(gateway, path, body))
    (charge,) = found["charges"]
    assert charge["rule"] == "usage"
    for word in (
        charge["model"],
        charge["kind"],
        charge["release"],
        "status 200",
        "rule usage",
        "of team test",
    ):
        assert word in text


class Choosy(Speaker):
    """Answers by what it is asked for."""

    async def send(self, call: Call) -> Reply:
        wish = json.loads(call.body)["messages"][-1]["content"]
        if wish == "fail":
            return Spoken(500, {"error": {"message": "no"}})
        if wish == "break":
            return await MemoryUpstream(break_after=0).send(call)
        if wish == "count":
            return await MemoryUpstream(reports_usage=False).send(call)
        if wish == "nonsense":
            return Spoken(200, b"<html>")
        return await super().send(call)


OUTCOMES: dict[str, tuple[dict[str, Any], str, str]] = {
    "usage": ({"model": "chat", "x": "answer"}, "usage", "status 200"),
    "estimate": ({"model": "chat", "x": "count"}, "estimate", "bytes / 3"),
    "failed": ({"model": "chat", "x": "fail"}, "failed", "status 500"),
    "broken": ({"model": "chat", "x": "break", "stream": True}, "broken", "streamed"),
    "cached": ({"model": "kept", "x": "answer"}, "cached", "answered from the cache"),
    "unpriced": ({"model": "free", "x": "answer"}, "unpriced", "unknown"),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_is_explained(tmp_path: Path, outcome: str) -> None:
    asked, rule, said = OUTCOMES[outcome]
    free = {**MODELS["chat"], "price": None}
    with world(tmp_path / "home", Choosy(), models={**MODELS, "free": free}) as gateway:
        words = [{"role": "user", "content": content} for content in ("a secret plan", asked["x"])]
        body = {**asked, "messages": words}
        for _ in range(2):
            answered = post(gateway, "/v1/chat/completions", body)
        found, text = explained(gateway, answered)
    assert [charge["rule"] for charge in found["charges"]] == [rule]
    assert said in text
    assert "plan" not in text


def test_an_answer_that_its_caller_left_is_explained(tmp_path: Path) -> None:
    with world(tmp_path / "home", Speaker(delay_s=0.3)) as gateway:
        body = {"model": "chat", "stream": True, **CHAT}
        with gateway.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as left:
            assert next(left.iter_raw())
        until(lambda: gateway.ledger(), what="the charge")
        found, text = explained(gateway, left)
    assert [(charge["rule"], charge["status"]) for charge in found["charges"]] == [("aborted", 499)]
    assert "the caller left" in text


def test_a_request_that_was_not_let_in_is_explained_by_its_spans(tmp_path: Path) -> None:
    with ScriptedServer([Scripted(body={})]) as upstream:
        platform, _ = serving(tmp_path, upstream, spans=True)
        try:
            key = platform.command("keys", "create", "poor", "--quiet", "--budget-usd", "0.0000001")
            headers, ids = {"authorization": f"Bearer {key}"}, {}
            for model, status in {"nobody": 404, "chat": 429}.items():
                body = {"model": model, **CHAT}
                refused = httpx.post(f"{platform.url}/v1/chat/completions", json=body, headers=headers)
                assert refused.status_code == status
                ids[status] = refused.headers["x-request-id"]
            told = {}
            for status, id in ids.items():

                def known(id: str = id, status: int = status) -> bool:
                    try:
                        told[status] = platform.command("explain", id)
                    except AssertionError:  # not written yet
                        return False
                    return True

                until(known, what="the explanation")
                assert str(status) in told[status]
        finally:
            assert platform.stop() == 0


def test_an_answer_that_cannot_be_read_is_the_upstreams_fault_and_not_charged(tmp_path: Path) -> None:
    with world(tmp_path / "home", Choosy()) as gateway:
        body = {"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "nonsense"}]}
        answered = post(gateway, "/v1/messages", body)
        assert (answered.status_code, answered.json()["error"]["type"]) == (502, "api_error")
        _, text = explained(gateway, answered)
    assert "status 502" in text
    assert "rule failed" in text


def test_labels_are_bounded_whatever_callers_write(tmp_path: Path) -> None:
    with world(tmp_path / "home", Broken()) as gateway, gateway.client() as client:
        for at in range(60):
            for model in (f"unknown-{at}", "chat"):
                body = {"model": model, **CHAT}
                client.post("/v1/chat/completions", json=body, headers={"user-agent": f"agent-{at}"})
            client.post(f"/v2/models/m-{at}/versions/{at}/infer", json=TENSOR)
            client.post("/v2/models/bikes/versions/9/infer", json=TENSOR)
            client.get(f"/path-{at}")
        text = client.get("/metrics").text
    labels = set(re.findall(r'model="([^"]*)"', text))
    assert labels <= {*MODELS, "-"}
    assert len(text.splitlines()) < 200
    assert not re.search(r"unknown-|agent-|m-\d|path-", text)


def test_refusals_are_counted_by_the_status_that_their_callers_got(gateway: Gateway) -> None:
    for path, body, headers, _ in REFUSALS.values():
        post(gateway, path, body, **headers)
    text = gateway.platform.metrics.text().decode()
    counted = dict(re.findall(r'trilith_requests_total\{kind="-",model="-",status="(\d+)"\} ([\d.]+)', text))
    assert counted == {"401": "1.0", "404": "1.0", "400": "1.0", "415": "1.0"}


def serving(
    folder: Path, upstream: ScriptedServer, *, spans: bool = False, **gateway: Any
) -> tuple[Platform, str]:
    model = {"kind": "chat", "upstream": {"url": f"{upstream.url}/v1"}, "price": PRICE}
    platform = Platform(folder, {"models": {"chat": model}, "telemetry": {"store_spans": spans}})
    described = json.loads(platform.path.read_text("utf-8"))
    described["gateway"] |= gateway
    platform.path.write_text(json.dumps(described), "utf-8")
    key = platform.command("keys", "create", "ops", "--quiet")
    platform.start()
    return platform, key


def test_a_stopping_gateway_says_so_takes_what_still_comes_and_finishes_its_streams(tmp_path: Path) -> None:
    more = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\n\n'
        assert more.wait(60)
        yield b'data: {"choices":[{"index":0,"delta":{"content":"last"},"finish_reason":"stop"}]}\n\n'
        yield b"data: [DONE]\n\n"

    with ScriptedServer([Scripted(body={"choices": []})]) as upstream:
        platform, key = serving(tmp_path, upstream, drain_notice_s=1.5)
        assert platform.process is not None
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client:
            upstream.script = [Scripted(headers={"content-type": "text/event-stream"}, parts=slowly())]
            with client.stream(
                "POST", "/v1/chat/completions", json={"model": "chat", "stream": True, **CHAT}
            ) as open:
                lines = open.iter_lines()
                assert "first" in next(lines)
                platform.process.send_signal(signal.SIGTERM)
                until(
                    lambda: httpx.get(f"{platform.url}/readyz").status_code == 503, what="readiness going off"
                )
                upstream.script = [Scripted(body={"choices": [], "usage": {"prompt_tokens": 1}})]
                taken = httpx.post(
                    f"{platform.url}/v1/chat/completions", json={"model": "chat", **CHAT}, headers=headers
                )
                assert taken.status_code == 200
                more.set()
                assert "[DONE]" in "".join(lines)
        assert platform.process.wait(timeout=60) == 0
    assert "Traceback" not in platform.log.read_text("utf-8")


def test_wrong_settings_leave_the_old_ones_running_and_say_why(tmp_path: Path) -> None:
    with ScriptedServer([Scripted(body={"choices": [], "usage": {"prompt_tokens": 1}})]) as upstream:
        platform, key = serving(tmp_path, upstream)
        good = json.loads(platform.path.read_text("utf-8"))
        headers = {"authorization": f"Bearer {key}"}
        answers: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client:
                while not stop.is_set():
                    answers.append(
                        client.post("/v1/chat/completions", json={"model": "chat", **CHAT}).status_code
                    )

        def models() -> set[str]:
            listed = httpx.get(f"{platform.url}/v1/models", headers=headers).json()["data"]
            return {model["id"] for model in listed}

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            assert platform.process is not None
            secret = "sk-canary-0123456789abcdef"
            bad = {
                **good,
                "models": {"chat": {"kind": "chat", "upstream": {"api_key": secret}, "colour": "red"}},
            }
            platform.path.write_text(json.dumps(bad), "utf-8")
            until(lambda: "the old ones stay" in platform.log.read_text("utf-8"), what="the refusal")
            assert models() == {"chat"}
            for name in ("second", "third"):
                platform.path.write_text(
                    json.dumps({**good, "models": {**good["models"], name: good["models"]["chat"]}}), "utf-8"
                )
                platform.process.send_signal(signal.SIGHUP)
                until(lambda name=name: models() == {"chat", name}, what="the new model")  # type: ignore[misc]
        finally:
            stop.set()
            asking.join()
            code = platform.stop()
    assert code == 0
    assert set(answers) == {200}
    log = platform.log.read_text("utf-8")
    assert "colour" in log
    assert secret not in log
