"""Clients that people already have, unchanged, against the real platform."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from contextlib import closing
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from support.installed import Platform, until

from trilith_gateway.store import sqlite

QUESTION: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


@pytest.fixture
def client(platform: Platform, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key, max_retries=0)


def engine_metrics(platform: Platform) -> dict[str, float]:
    """vLLM's own counters."""
    port = json.loads(platform.path.read_text(encoding="utf-8"))["engines"]["smollm2"]["port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    lines = re.findall(r"^vllm:(\w+)\{[^}]*\} ([0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def ledger(platform: Platform, request_id: str) -> dict[str, Any]:
    with closing(sqlite.connect(sqlite.database(platform.home))) as connection:
        statement = "select * from ledger where request_id = ?"
        until(lambda: connection.execute(statement, (request_id,)).fetchone(), what="the ledger's row")
        return dict(connection.execute(statement, (request_id,)).fetchone())


def test_openai_streams_from_vllm_and_ledger_and_engine_agree_on_tokens(
    platform: Platform, client: openai.OpenAI
) -> None:
    before = engine_metrics(platform)
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        max_tokens=16,
    )
    chunks = list(raw.parse())
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert "Paris" in text
    assert usage is not None
    row = ledger(platform, raw.headers["x-request-id"])
    assert (row["input_tokens"], row["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
    after = engine_metrics(platform)
    assert after["prompt_tokens_total"] - before["prompt_tokens_total"] == row["input_tokens"]
    assert after["generation_tokens_total"] - before["generation_tokens_total"] == row["output_tokens"]
    # 0.02 USD per million input tokens and 0.06 per million output tokens
    assert row["amount_pico_usd"] == row["input_tokens"] * 20_000 + row["output_tokens"] * 60_000


async def test_openai_s_asynchronous_client_works_too(platform: Platform, key: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{platform.url}/v1", api_key=key) as client:
        answer = await client.chat.completions.create(
            model="smollm2",
            messages=QUESTION,
            temperature=0,
            max_tokens=16,
        )
    assert "Paris" in (answer.choices[0].message.content or "")


def test_openai_embeds(client: openai.OpenAI) -> None:
    made = client.embeddings.create(model="minilm", input=["a cat", "a kitten", "a tax form"])
    cat, kitten, form = (item.embedding for item in made.data)
    assert len(cat) == 384

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(cat, kitten) > dot(cat, form)
    assert made.usage.prompt_tokens > 0


def test_openai_s_errors_come_as_its_own_classes(platform: Platform, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    stranger = openai.OpenAI(base_url=f"{platform.url}/v1", api_key="tl_wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_langchain_s_chat_model_answers_and_streams(platform: Platform, key: str) -> None:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        base_url=f"{platform.url}/v1", api_key=key, model="smollm2", temperature=0, max_tokens=16
    )
    assert "Paris" in str(model.invoke("What is the capital of France?").content)
    parts = [str(chunk.content) for chunk in model.stream("What is the capital of France?")]
    assert len(parts) > 3
    assert "Paris" in "".join(parts)


def test_curl_gets_an_answer(platform: Platform, key: str) -> None:
    body = json.dumps({"model": "smollm2", "messages": QUESTION, "max_tokens": 16, "temperature": 0})
    command = [
        "curl",
        "-sS",
        f"{platform.url}/v1/chat/completions",
        "-H",
        f"authorization: Bearer {key}",
        "-d",
        body,
    ]
    answer = json.loads(subprocess.check_output(command))
    assert "Paris" in answer["choices"][0]["message"]["content"]


def test_a_caller_who_hangs_up_stops_the_engine_s_work(platform: Platform, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "Tell a very long story about the sea."}],
        stream=True,
        max_tokens=1000,
    )
    for _ in zip(range(5), stream, strict=False):
        pass
    request_id = stream.response.headers["x-request-id"]
    stream.close()
    until(
        lambda: engine_metrics(platform)["num_requests_running"] == 0, seconds=5, what="the engine being idle"
    )
    row = ledger(platform, request_id)
    assert row["rule"] == "aborted"
    assert 0 < row["output_tokens"] < 500
