"""`telemetry.content`: off, no text of a caller is on any span; on, it is the text that the model saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.gateway import Running
from support.installed import until

from trilith.settings.schema import Settings
from trilith.telemetry import names
from trilith.testing import MemoryUpstream

TEXT = "Write to Ada Lovelace, please"


def platform(home: Path, *, content: bool, **pii: Any) -> Running:
    chat = {"kind": "chat", "upstream": {"url": "http://127.0.0.1:9/v1"}, "policy": "private"}
    rag = {"kind": "rag", "index": "docs", "generator": "echo", "policy": "private"}
    declared = {
        "home": home,
        "telemetry": {"content": content},
        "policies": {"private": {"pii": pii}},
        "indexes": {"docs": {"source": home}},
        "models": {"echo": chat, "docs": rag},
    }
    upstreams = {"echo": MemoryUpstream(), "docs": MemoryUpstream("I don't know.")}
    return Running(Settings.model_validate(declared), upstreams)


def attributes(spans: InMemorySpanExporter) -> dict[str, Any]:
    """The attributes of the request's span, once it is there."""

    def found() -> list[Any]:
        return [span for span in spans.get_finished_spans() if span.name.startswith("chat ")]

    until(found, what="the request's span")
    return dict(found()[0].attributes)


def text_of(messages: str) -> list[str]:
    return [part["content"] for message in json.loads(messages) for part in message["parts"]]


@pytest.mark.parametrize("stream", [False, True])
def test_text_is_on_no_span_unless_it_is_switched_on(
    tmp_path: Path, spans: InMemorySpanExporter, stream: bool
) -> None:
    with platform(tmp_path, content=False) as gateway:
        assert gateway.chat(TEXT, stream=stream).status_code == 200
        attributes(spans)
    shown = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "Write" not in shown
    assert "gen_ai.input" not in shown
    assert "gen_ai.output" not in shown


@pytest.mark.parametrize("stream", [False, True])
def test_switched_on_it_is_what_the_model_saw_and_said(
    tmp_path: Path, spans: InMemorySpanExporter, stream: bool
) -> None:
    with platform(tmp_path, content=True) as gateway:
        assert gateway.chat(TEXT, stream=stream).status_code == 200
        found = attributes(spans)
    masked = "Write to <PERSON_1>, please"
    assert text_of(found[names.INPUT_MESSAGES]) == [masked]
    assert text_of(found[names.OUTPUT_MESSAGES]) == [masked]
    assert json.loads(found[names.OUTPUT_MESSAGES])[0]["finish_reason"] == "stop"
    assert "Lovelace" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_a_question_to_documents_is_recorded_with_placeholders_too(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    with platform(tmp_path, content=True) as gateway:
        assert gateway.chat(TEXT, model="docs").status_code == 200
        found = attributes(spans)
    assert text_of(found[names.INPUT_MESSAGES]) == ["Write to <PERSON_1>, please"]
    assert text_of(found[names.OUTPUT_MESSAGES]) == ["I don't know."]


def test_a_request_that_a_policy_refused_leaves_no_text(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with platform(tmp_path, content=True, action="block") as gateway:
        assert gateway.chat(TEXT).status_code == 403
        found = attributes(spans)
    assert not {names.INPUT_MESSAGES, names.OUTPUT_MESSAGES} & found.keys()
    assert "Lovelace" not in "".join(span.to_json() for span in spans.get_finished_spans())
