"""Secrets and texts are planted in every field and looked for in everything that a running gateway writes."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.eval_run import FINDING, told
from support.installed import Platform, until
from support.scripted_server import Scripted, ScriptedServer

PRICE = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "3"}


class Canaries:
    """Words that stand nowhere else; each is noted with the field that it was planted in."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}

    def __call__(self, field: str) -> str:
        word = f"canary{secrets.token_hex(8)}"
        self.planted[word] = field
        return word

    def found(self, data: bytes) -> list[str]:
        return sorted({field for word, field in self.planted.items() if word.encode() in data})


def answer(text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "a-1", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


class _Anyhow(Platform):
    """Counts as started when it answers at all: some of its upstreams never will."""

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return httpx.get(f"{self.url}/healthz").status_code == 200
        except httpx.TransportError:
            return False


class Scene:
    """A gateway in processes of its own, with upstreams that answer, fail, break off and talk nonsense."""

    def __init__(self, folder: Path, stack: ExitStack, log: str) -> None:
        self.canary = canary = Canaries()
        self.credential = f"sk-{canary('an upstream credential')}"
        chunk = {"choices": [{"index": 0, "delta": {"content": canary("a streamed answer")}}]}
        stream: Any = {"headers": {"content-type": "text/event-stream"}, "breaks": True}
        outputs = [{"name": "predict", "shape": [1], "datatype": "FP64", "data": [1.0]}]
        scripts = {
            "good": Scripted(body=answer(canary("an answer"), data=[], outputs=outputs, model_name="x")),
            "failing": Scripted(500, {"error": {"message": canary("an upstream's error"), "type": "x"}}),
            "refusing": Scripted(400, {"error": {"message": canary("an upstream's refusal"), "type": "x"}}),
            "breaking": Scripted(parts=[b"data: %b\n\n" % json.dumps(chunk).encode()], **stream),
            "garbled": Scripted(body=f"<html>{canary('an upstream that talks nonsense')}".encode()),
        }
        self.collector = stack.enter_context(ScriptedServer([Scripted()]))
        models: dict[str, Any] = {}
        for name, script in scripts.items():
            url = stack.enter_context(ScriptedServer([script])).url
            upstream = {"url": f"{url}/v1", "api_key": self.credential}
            models[name] = {"kind": "chat", "upstream": upstream, "price": PRICE}
        there = models["good"]["upstream"]
        models["kept"] = {**models["good"], "cache": {"ttl_s": 60, "only_deterministic": False}}
        models["vectors"] = {"kind": "embedding", "upstream": there, "price": PRICE}
        models["bikes"] = {"kind": "predictor", "upstream": there, "price": PRICE}
        self.platform = _Anyhow(
            folder,
            {
                "models": models,
                "telemetry": {"otlp_endpoint": f"{self.collector.url}/v1/traces"},
            },
        )
        described = json.loads(self.platform.path.read_text("utf-8"))
        described["gateway"]["log"] = log
        self.platform.path.write_text(json.dumps(described), "utf-8")
        self.key, self.admin = self._made(), self._made("--admin")
        self.log = folder / "gateway.log"

    def _made(self, *options: str) -> str:
        made = self.platform.command("keys", "create", "canary-test", "--team", "birds", *options)
        token = next(word for word in made.split() if word.startswith("tl_"))
        self.canary.planted[token.split("_", 2)[2]] = "the key's secret"
        return token

    def _provoke_evals(self, client: httpx.Client) -> None:
        """Ask for runs and findings in ways that are refused, with both keys."""
        canary, runs, monitors = self.canary, "/admin/v1/evals/runs", "/admin/v1/evals/monitors"
        for key in (self.key, self.admin):
            headers = {"authorization": f"Bearer {key}"}

            def ask(method: str, path: str, headers: dict[str, str] = headers, **more: Any) -> None:
                assert client.request(method, path, headers=headers, **more).status_code in (400, 403, 404)

            row = {"id": canary("a case"), "repeat": 0, "input": canary("a case's input"), "scores": {}}
            suite = {"name": canary("a suite"), "rows": [row], "data": canary("a dataset")}
            ask("POST", runs, json={"started": canary("a start"), "suites": [suite]})
            ask("POST", runs, content=f'{{"suites": {canary("a broken run")}'.encode())
            ask("POST", monitors, json={"monitor": canary("a monitor"), "message": canary("a message")})
            ask("GET", f"{runs}/{canary('a run')}")
            ask("GET", f"{runs}/{canary('a run')}/report")
            ask("DELETE", f"{runs}/{canary('a run')}")
            ask("GET", runs, params={"suite": canary("a wanted suite"), "after": canary("a run")})
            ask("GET", monitors, params={"monitor": canary("a monitor"), "after": canary("a finding")})
            ask("GET", "/admin/v1/evals/compare", params={"baseline": canary("x"), "candidate": canary("x")})

    def provoke(self) -> None:
        """Send something to every route, with a word in every field; with the key and without."""
        canary = self.canary
        chats = ["good", "kept", "kept", "failing", "refusing", "breaking", "garbled", "bikes"]
        tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "data": [canary("a tensor")]}
        headers = {
            "authorization": f"Bearer {self.key}",
            "x-custom": canary("a header"),
            "cookie": canary("a cookie"),
            "user-agent": canary("the user agent"),
            "idempotency-key": canary("the idempotency key"),
        }
        with httpx.Client(base_url=self.platform.url, headers=headers, timeout=30) as client:

            def post(path: str, body: object, **more: Any) -> None:
                sent = {"json": body} if not isinstance(body, bytes) else {"content": body}
                client.post(path, **sent, headers={"idempotency-key": secrets.token_hex(4)}, **more)

            for model in chats:
                for stream in (False, True):
                    chat = {
                        "model": model,
                        "stream": stream,
                        "max_tokens": 9,
                        "user": canary("the user's name"),
                        "metadata": {"note": canary("metadata")},
                        "messages": [
                            {"role": "system", "content": canary("instructions")},
                            {"role": "user", "content": [{"type": "text", "text": canary("a part")}]},
                            {"role": "user", "content": canary("a question"), "name": canary("a name")},
                        ],
                        "tools": [{"type": "function", "function": {"name": canary("a tool")}}],
                    }
                    post("/v1/chat/completions", chat)
                    message = {"role": "user", "content": canary("a message")}
                    system = canary("a message's instructions")
                    post("/v1/messages", {**chat, "system": system, "messages": [message], "tools": []})
                post(
                    "/v1/completions",
                    {"model": model, "prompt": canary("a prompt"), "suffix": canary("a suffix")},
                )
                post("/v1/responses", {"model": model, "input": canary("an input")})
            post("/v1/embeddings", {"model": "vectors", "input": [canary("a text to embed")]})
            post("/v2/models/bikes/infer", {"id": canary("an inference's id"), "inputs": [tensor]})
            post(f"/v2/models/{canary('a path')}/infer", {"inputs": [tensor]})
            post("/invocations", {"dataframe_records": [{canary("a column"): canary("a cell")}]})
            post(
                "/v1/chat/completions", {"model": canary("an unknown model"), "messages": [{"role": "user"}]}
            )
            post("/v1/chat/completions", f'{{"model": "good", "x": {canary("broken JSON")}'.encode())
            post("/v1/chat/completions?q=" + canary("a query"), {"model": "good"})
            post("/v1/feedback", {"request_id": "nobody", "comment": canary("a refused comment")})
            client.get(f"/v1/{canary('a path that is none')}")
            client.get(
                "/v1/models", headers={"authorization": f"Bearer tl_000000000000_{'x' * 20}{canary('x')}"}
            )
            client.get("/v1/models", headers={"authorization": f"Basic {canary('a password')}"})
            self._provoke_evals(client)
            self.metrics = client.get("/metrics").content

    def sinks(self) -> Iterator[tuple[str, bytes]]:
        """Everything that the gateway has written anywhere."""
        for path in sorted(self.platform.home.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(self.platform.home)), path.read_bytes()
        yield "the log", self.log.read_bytes()
        yield "the metrics", self.metrics
        yield "the collector of spans", b"".join(received.body for received in self.collector.received)
        yield "the audit log", self.platform.command("audit", "list").encode()
        yield "the newest traces", self.platform.command("traces").encode()


@pytest.mark.parametrize("log", ["text", "json"])
def test_no_planted_word_is_found_in_anything_that_was_written(tmp_path: Path, log: str) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, log)
        stack.callback(scene.platform.stop)
        scene.platform.start()
        scene.provoke()
        until(lambda: scene.collector.received, what="spans reaching the collector")
        time.sleep(1.5)  # the last spans and facts are written in batches
        running = {name: scene.canary.found(data) for name, data in scene.sinks()}
        assert scene.platform.stop() == 0
        stopped = {name: scene.canary.found(data) for name, data in scene.sinks()}
    found = {name: fields for name, fields in [*running.items(), *stopped.items()] if fields}
    assert found == {}
    assert {"trilith.db", "traces.db", "the log", "the collector of spans"} <= stopped.keys()
    assert len(scene.canary.planted) > 150


def test_what_a_kept_run_says_stands_in_the_database_and_nowhere_else(tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, "json")
        stack.callback(scene.platform.stop)
        scene.platform.start()
        word = scene.canary("a kept run")
        headers = {"authorization": f"Bearer {scene.admin}"}
        with httpx.Client(base_url=scene.platform.url, headers=headers, timeout=60) as client:
            id = client.post("/admin/v1/evals/runs", json=told({1}, suite=word, word=word)).json()["id"]
            client.post("/admin/v1/evals/monitors", json={**FINDING, "message": word}).raise_for_status()
            assert word in client.get(f"/admin/v1/evals/runs/{id}/report").text
            asked = {"baseline": id, "candidate": id}
            assert word in client.get("/admin/v1/evals/compare", params=asked).text
            scene.metrics = client.get("/metrics").content
        time.sleep(1.5)
        assert scene.platform.stop() == 0
        found = {name for name, data in scene.sinks() if scene.canary.found(data)}
    assert {name for name in found if not name.startswith("trilith.db")} == set()
    assert found


def test_a_word_that_is_written_would_be_found(tmp_path: Path) -> None:
    canary = Canaries()
    (tmp_path / "x").write_text(f"... {canary('a field')} ...", "utf-8")
    assert canary.found((tmp_path / "x").read_bytes()) == ["a field"]
