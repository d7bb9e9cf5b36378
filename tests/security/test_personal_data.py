"""Personal data behind a policy: it reaches no upstream, no file, no log and no span, and comes back to its
caller whole however a stream is cut."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.gateway import Gateway
from support.world import MODELS, Speaker, Spoken, world

from trilith.errors import APIConnectionError
from trilith.seams import Call, Reply
from trilith_gateway.log import JsonFormatter

NAME, MAIL, CARD = "Ada Lovelace", "ada.lovelace@example.org", "4111 1111 1111 1111"
TEXT = f"{NAME} pays with {CARD}; write to {MAIL}."
GUARDED = {"guarded": MODELS["guarded"]}


class Sliced:
    """Streams back what it was asked, in chunks of one character, and its bytes cut where it is told."""

    def __init__(self, *, at: int | None = None, breaks: bool = False) -> None:
        self.at = at
        self.breaks = breaks
        self.calls: list[Call] = []
        self.size = 0

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        text = json.loads(call.body)["messages"][-1]["content"]
        chunks = [{"choices": [{"index": 0, "delta": {"content": letter}}]} for letter in text]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        stream = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks)
        stream += b"data: [DONE]\n\n"
        self.size = len(stream)
        return _Stream(stream, self.at, self.breaks)

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


class _Stream(Spoken):
    def __init__(self, stream: bytes, at: int | None, breaks: bool) -> None:
        super().__init__(200, stream, {"content-type": "text/event-stream"})
        self._stream, self._at, self._breaks = stream, at, breaks

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._at is None:
            for at in range(len(self._stream)):
                yield self._stream[at : at + 1]
        else:
            yield self._stream[: self._at]
            if self._breaks:
                raise APIConnectionError("it broke off")
            yield self._stream[self._at :]


def streamed(gateway: Gateway, text: str = TEXT) -> str:
    said = gateway.chat(text, model="guarded", stream=True).text
    chunks = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: {")]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())
    )


def test_a_stream_cut_anywhere_restores_the_same_text(tmp_path: Path) -> None:
    upstream = Sliced()
    with world(tmp_path, upstream, models=GUARDED) as gateway:
        assert streamed(gateway) == TEXT
        for at in range(
            0, upstream.size, 97
        ):  # within events everywhere: their lengths are no multiples of it
            upstream.at = at
            assert streamed(gateway) == TEXT, at
    assert not any(secret in str(upstream.calls) for secret in (NAME, MAIL, CARD))


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


class Failing(Speaker):
    """Fails in a way of its own at each call, quoting what it was sent."""

    async def send(self, call: Call) -> Reply:
        self.calls.append(call)
        quoted = call.body.decode()
        match len(self.calls) % 5:
            case 0:
                return Spoken(500, {"error": {"message": quoted}})
            case 1:
                return Spoken(400, {"error": {"message": quoted}})
            case 2:
                return Spoken(200, f"no JSON: {quoted}".encode())
            case 3:
                raise APIConnectionError(quoted)
        raise ValueError(quoted)


def test_no_sink_holds_personal_data_whether_requests_succeed_or_fail(
    tmp_path: Path, log: io.StringIO, spans: InMemorySpanExporter
) -> None:
    failing = Failing()
    with (
        world(tmp_path / "good", models=GUARDED) as good,
        world(tmp_path / "bad", failing, models=GUARDED) as bad,
    ):
        sent: list[Any] = []
        for gateway in (good, bad):
            with gateway.client() as client:
                for at in range(20):
                    body = {
                        "model": "guarded",
                        "stream": at % 2 == 1,
                        "user": NAME,
                        "max_tokens": 99,
                        "messages": [
                            {"role": "user", "content": TEXT},
                            {"role": "user", "content": [{"type": "text", "text": TEXT}]},
                        ],
                    }
                    path = ("/v1/chat/completions", "/v1/messages")[at // 10]
                    sent.append(client.post(path, json=body, headers={"idempotency-key": f"k{at}"}))
            gateway.platform.store.flush()
        assert {answer.status_code for answer in sent} >= {200, 400, 500, 502}
        good_calls = good.platform.releases.find("guarded")
        assert good_calls is not None
        sinks = {
            "the upstream": str(failing.calls) + str(getattr(good_calls.upstream, "calls", "")),
            "the log": log.getvalue(),
            "spans": str(
                [(s.name, dict(s.attributes or {}), s.status.description) for s in spans.get_finished_spans()]
            ),
            "metrics": (good.platform.metrics.text() + bad.platform.metrics.text()).decode(),
            "audit": str(good.rows("select * from audit") + bad.rows("select * from audit")),
            "ledger": str(good.ledger() + bad.ledger()),
        }
        for file in tmp_path.rglob("*"):
            if file.is_file():
                sinks[str(file)] = file.read_bytes().decode("latin-1")
    assert good_calls.upstream.calls  # type: ignore[attr-defined]
    leaks = {
        sink for sink, text in sinks.items() for secret in (NAME, "Lovelace", MAIL, CARD) if secret in text
    }
    assert leaks == set()
    assert "pii.mask" in sinks["audit"]


def test_a_name_that_stands_twice_cannot_carry_personal_data_past_the_policy(tmp_path: Path) -> None:
    """Parsers differ in which of two equal names counts; what goes on is what was looked at."""
    speaker = Speaker()
    with world(tmp_path, speaker, models=GUARDED) as gateway, gateway.client() as client:
        first = json.dumps([{"role": "user", "content": TEXT}])
        raw = f'{{"model":"guarded","messages":{first},"messages":[{{"role":"user","content":"hello"}}]}}'
        assert client.post("/v1/chat/completions", content=raw.encode()).status_code == 200
    assert "Lovelace" not in speaker.calls[0].body.decode()
