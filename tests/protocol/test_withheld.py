"""A chat that a content filter left empty, over HTTP with OpenAI's client: another model may answer it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from support.gateway import PRICE, Running
from support.scripted_server import Scripted, ScriptedServer

from trilith.settings.schema import Settings
from trilith_gateway.routing import cause

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def whole(text: str | None, reason: str) -> Scripted:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return Scripted(body=body | {"usage": USAGE})


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[Scripted], tuple[str | None, list[Any]]]:
    """Ask a model that answers like this and has a fallback; return what was said, and who was charged."""

    def asked(first: Scripted) -> tuple[str | None, list[Any]]:
        with ScriptedServer([first]) as one, ScriptedServer([whole("spare", "stop")]) as other:
            models: dict[str, Any] = {
                "first": {"kind": "chat", "upstream": {"url": f"{one.url}/v1"}, "price": PRICE},
                "spare": {"kind": "chat", "upstream": {"url": f"{other.url}/v1"}, "price": PRICE},
            }
            models["first"]["fallbacks"] = ["spare"]
            settings = Settings.model_validate({"home": tmp_path / "home", "models": models})
            with (
                Running(settings, {}) as gateway,
                openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.token, max_retries=0) as client,
            ):
                said = client.chat.completions.create(
                    model="first", messages=[{"role": "user", "content": "hi"}]
                )
                rows = [(row["model"], row["input_tokens"], row["output_tokens"]) for row in gateway.ledger()]
            return said.choices[0].message.content, rows

    return asked


@pytest.mark.parametrize("text", [None, ""])
def test_an_answer_that_the_filter_left_empty_falls_back_and_both_are_charged(
    ask: Any, text: str | None
) -> None:
    assert ask(whole(text, "content_filter")) == ("spare", [("first", 3, 2), ("spare", 3, 2)])


@pytest.mark.parametrize(
    ("text", "reason"), [("so far", "content_filter"), ('"content_filter"', "stop"), ("", "stop")]
)
def test_an_answer_that_said_something_is_the_answer(ask: Any, text: str, reason: str) -> None:
    assert ask(whole(text, reason)) == (text, [("first", 3, 2)])


def test_an_overloaded_replica_is_sick_and_another_is_tried() -> None:
    assert cause.sick(529)
    assert cause.after_status(529, repeatable=False) is cause.Again.ELSEWHERE
    assert cause.rest_s(529, {"retry-after": "3"}) == 3.0
